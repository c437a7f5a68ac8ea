use std::io::Write;

use super::*;
use crate::files::shared;

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

fn plain(text: &str) -> Text {
    Text::Plain(text.into())
}

fn chat<const N: usize>(turns: [(&str, &str); N]) -> Text {
    let messages = turns.map(|(role, content)| Message::new(role, content)).into();
    Text::Chat(Conversation { messages, ..Conversation::default() })
}

fn pairs(content: &str) -> Result<Vec<Pair>> {
    read_pairs(file(content.as_bytes()).path(), &Columns::default())
}

#[track_caller]
fn assert_row_error<T: std::fmt::Debug>(result: Result<T>, at: usize, parts: &[&str]) {
    match result {
        Err(Error::Row { line, why, .. }) => {
            assert_eq!(line, at, "{why}");
            parts.iter().for_each(|part| assert!(why.contains(part), "{part:?} is not in {why:?}"));
        }
        other => panic!("expected Error::Row, got {other:?}"),
    }
}

#[test]
fn json_lines_arrays_and_their_gzip_have_the_same_rows_under_any_name() {
    let lines = "\u{feff}{\"prompt\": \"a\"}\r\n\n  \n{\"prompt\": \"b\", \"reference\": \"r\"}";
    let array = "\n[{\"prompt\": \"a\"},\n{\"prompt\": \"b\", \"reference\": \"r\"}]";
    for (content, last_line) in [(lines, 4), (array, 2)] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(content.as_bytes()).unwrap();
        for bytes in [content.as_bytes(), &gzip.finish().unwrap()] {
            let file = file(bytes);
            let rows = read_prompts(file.path(), &Columns::default()).unwrap();
            let place = |line| Place { file: Some(file.path().into()), line };
            let expected = [
                Prompt { prompt: plain("a"), reference: None, place: place(1) },
                Prompt { prompt: plain("b"), reference: Some("r".into()), place: place(last_line) },
            ];
            assert_eq!(rows, expected);
        }
    }
}

#[test]
fn an_explicit_prompt_is_read_unchanged() {
    let rows = pairs(r#"{"prompt": "Q:", "chosen": " a", "rejected": " b"}"#).unwrap();
    let [Pair { prompt, chosen, rejected, .. }] = &rows[..] else { panic!() };
    assert_eq!([prompt, chosen, rejected], [&plain("Q:"), &plain(" a"), &plain(" b")]);
}

#[test]
fn an_implicit_prompt_ends_at_the_last_speaker_marker() {
    let row = r#"{"chosen": "\n\nHuman: hi\n\nAssistant: It is é", "rejected": "\n\nHuman: hi\n\nAssistant: It is è"}"#;
    let [row] = &pairs(row).unwrap()[..] else { panic!() };
    assert_eq!(row.prompt, plain("\n\nHuman: hi\n\nAssistant:"));
    assert_eq!((&row.chosen, &row.rejected), (&plain(" It is é"), &plain(" It is è")));
}

#[test]
fn an_implicit_prompt_without_marker_ends_at_the_last_white_space() {
    let [row] = &pairs(r#"{"chosen": "the sky is blue", "rejected": "the sky is black"}"#).unwrap()[..]
    else {
        panic!()
    };
    assert_eq!((&row.prompt, &row.chosen), (&plain("the sky is"), &plain(" blue")));
    let [row] = &pairs(r#"{"chosen": "say A", "rejected": "say A B"}"#).unwrap()[..] else { panic!() };
    assert_eq!((&row.prompt, &row.rejected), (&plain("say"), &plain(" A B")));
}

#[test]
fn an_implicit_prompt_of_conversations_is_the_messages_they_share() {
    let row = r#"{"prompt": "ignored: the conversations hold it",
        "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#
        .replace('\n', "");
    let [row] = &pairs(&row).unwrap()[..] else { panic!() };
    assert_eq!(row.prompt, chat([("user", "q")]));
    assert_eq!((&row.chosen, &row.rejected), (&chat([("assistant", "a")]), &chat([("assistant", "a")])));
}

#[test]
fn responses_without_a_common_beginning_are_errors() {
    assert_row_error(pairs(r#"{"chosen": "yes", "rejected": "no"}"#), 1, &["\"prompt\"", "common beginning"]);
    let disjoint =
        r#"{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}"#;
    assert_row_error(pairs(disjoint), 1, &["common beginning"]);
}

#[test]
fn columns_can_be_renamed() {
    let file = file(br#"{"question": "q", "answer": "a", "story": "s"}"#);
    let mut columns =
        Columns { prompt: "question".into(), completion: "answer".into(), ..Columns::default() };
    let rows = read_completions(file.path(), &columns).unwrap();
    assert_eq!((&rows[0].prompt, &rows[0].completion), (&Some(plain("q")), &plain("a")));
    columns = Columns { text: "story".into(), ..Columns::default() };
    let rows = read_completions(file.path(), &columns).unwrap();
    assert_eq!((&rows[0].prompt, &rows[0].completion), (&None, &plain("s")));
    // A renamed column takes precedence over the default meaning of its name.
    columns = Columns { text: "question".into(), prompt: "question".into(), ..Columns::default() };
    let rows = read_completions(file.path(), &columns).unwrap();
    assert_eq!((&rows[0].prompt, &rows[0].completion), (&None, &plain("q")));
}

#[test]
fn responses_may_be_empty() {
    let file = file(br#"{"prompt": "q", "response_1": "", "response_2": "b"}"#);
    let rows = read_responses(file.path(), &Columns::default()).unwrap();
    assert_eq!((&rows[0].prompt, &rows[0].responses), (&plain("q"), &[plain(""), plain("b")]));
}

#[test]
fn malformed_json_names_its_line() {
    let good = r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#;
    assert_row_error(
        pairs(&format!("{good}\n\n{{\"prompt\": oops}}\n")),
        3,
        &["not valid JSON", "column 12"],
    );
    assert_row_error(pairs(&format!("{good}\n{}", &good[..20])), 2, &["not valid JSON"]);
    assert_row_error(pairs(&format!("[{good},\n{good},\n oops]")), 3, &["not valid JSON"]);
    assert_row_error(pairs(&format!("{good}\n\"only a string\"")), 2, &["is a string", "expected an object"]);
    let not_utf8 = file(b"{\"prompt\": \"\xff\"}");
    assert_row_error(read_prompts(not_utf8.path(), &Columns::default()), 1, &["not valid JSON"]);
}

#[test]
fn an_empty_file_is_an_error() {
    for content in ["", "\n \n", "[]"] {
        assert_row_error(pairs(content), 1, &["no rows"]);
    }
}

#[test]
fn a_missing_column_names_those_present() {
    assert_row_error(
        pairs(r#"{"prompt": "q", "chosen": "a", "worse": "b"}"#),
        1,
        &["no column \"rejected\"", "\"chosen\", \"prompt\", \"worse\"", "with `rejected-column`"],
    );
    let file = file(br#"[{"prompt": "q", "completion": "a"}, {"prompt": "q"}]"#);
    let rows = read_completions(file.path(), &Columns::default());
    assert_row_error(rows, 2, &["element 2 of the array", "no column \"completion\"", "\"prompt\""]);
}

#[test]
fn a_column_of_the_wrong_type_says_what_it_is() {
    for (value, found) in [
        ("1", "a number"),
        ("true", "a truth value"),
        ("{}", "an object"),
        ("[]", "an empty list"),
        ("[1]", "something else"),
    ] {
        let row = format!(r#"{{"prompt": "q", "chosen": {value}, "rejected": "b"}}"#);
        assert_row_error(pairs(&row), 1, &["\"chosen\"", found]);
    }
    let mixed = r#"{"prompt": "q", "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"}"#;
    assert_row_error(pairs(mixed), 1, &["\"chosen\" is a conversation", "its prompt is a string"]);
}

#[test]
fn empty_responses_are_read() {
    let row = r#"{"prompt": "q", "chosen": "a", "rejected": ""}"#;
    assert!(pairs(row).unwrap()[0].rejected.is_empty());
    let row = r#"{"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": ""}], "rejected": [{"role": "assistant", "content": "a"}]}"#;
    assert!(pairs(row).unwrap()[0].chosen.is_empty());
    let file = file(br#"{"text": ""}"#);
    assert!(read_completions(file.path(), &Columns::default()).unwrap()[0].completion.is_empty());
}

/// Rows in the forms of datasets on the hub, see tests/fixtures/make_rows.py.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rows").join(name)
}

#[test]
fn every_format_gives_the_columns_that_pyarrow_and_pandas_read() {
    let expected = crate::files::read_json(&fixture("expected.json")).unwrap();
    let files = expected["rows"].as_object().unwrap();
    for (name, rows) in
        files.iter().filter(|(name, _)| cfg!(feature = "parquet") || !name.ends_with(".parquet"))
    {
        let rows = rows.as_array().unwrap();
        let read: Vec<Value> = Rows::new(&[fixture(name)], &Columns::default(), |row, _, _| {
            Ok(Value::Object(row.columns().clone()))
        })
        .collect::<Result<_>>()
        .unwrap();
        assert_eq!(read.len(), rows.len(), "{name}");
        for (read, row) in read.iter().zip(rows) {
            // Null values are absent.
            let row: Map<String, Value> = row
                .as_object()
                .unwrap()
                .iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert_eq!(read, &Value::Object(row), "{name}");
        }
    }
}

#[cfg(feature = "parquet")]
#[test]
fn hub_datasets_are_read_in_their_own_columns() {
    let columns = Columns::default();
    let sky = "Why is the sky blue?";
    let ultrafeedback = fixture("ultrafeedback_binarized.parquet");
    let rows = read_pairs(&ultrafeedback, &columns).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0].prompt, chat([("user", sky)]));
    assert_eq!(rows[0].chosen.transcript(), "assistant: Light is scattered.");
    assert_eq!(rows[0].rejected.transcript(), "assistant: Paint.");
    assert!(rows[2].rejected.is_empty() && rows[3].rejected == rows[3].chosen);
    // For sft, rows with messages are trained on whole; the prompt is only their beginning.
    let learnt = read_completions(&ultrafeedback, &columns).unwrap();
    assert_eq!(
        (learnt[0].prompt.is_none(), learnt[0].completion.transcript()),
        (true, format!("user: {sky}\nassistant: Light is scattered."))
    );
    assert_eq!(read_prompts(&ultrafeedback, &columns).unwrap()[0].prompt, chat([("user", sky)]));
    let prompts = read_prompts(&fixture("ultrafeedback-prompt.zstd.parquet"), &columns).unwrap();
    assert_eq!((prompts.len(), &prompts[0].prompt), (4, &chat([("user", sky)])));
    let tldr = read_completions(&fixture("tldr.gzip.parquet"), &columns).unwrap();
    assert_eq!(
        (&tldr[2].prompt, &tldr[2].completion),
        (&Some(plain("POST: What is 2 + 2?\n\nTL;DR:")), &plain(" 4"))
    );
    let preference = read_pairs(&fixture("tldr-preference.parquet"), &columns).unwrap();
    assert_eq!((&preference[2].chosen, &preference[2].rejected), (&plain(" 4"), &plain(" 5")));
    let helpful = read_pairs(&fixture("hh-rlhf-helpful-base.parquet"), &columns).unwrap();
    assert_eq!(helpful[3].prompt.transcript(), "user: Hello\nassistant: Yes?\nuser: Пожалуйста 🦊");
    assert_eq!(helpful[3].rejected.transcript(), "assistant: нет");
    assert_eq!(helpful[3].place.line, 4);
}

#[cfg(feature = "parquet")]
#[test]
fn an_unpaired_preference_is_a_completion_with_a_label_but_not_a_pair() {
    let columns = Columns::default();
    let rows = read_completions(&fixture("unpaired.parquet"), &columns).unwrap();
    assert_eq!(
        rows.iter().map(|row| row.label).collect::<Vec<_>>(),
        [Some(true), Some(false), Some(true), Some(true)]
    );
    assert_eq!(read_prompts(&fixture("unpaired.parquet"), &columns).unwrap().len(), 4);
    assert_row_error(
        read_pairs(&fixture("unpaired.parquet"), &columns),
        1,
        &["unpaired", "row 1 of the table"],
    );
}

#[test]
fn a_pair_is_not_a_completion() {
    let file = file(br#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#);
    let rows = read_completions(file.path(), &Columns::default());
    assert_row_error(rows, 1, &["is a pair", "dpo"]);
    let columns = Columns { completion: "chosen".into(), ..Columns::default() };
    assert_eq!(read_completions(file.path(), &columns).unwrap()[0].completion, plain("a"));
}

#[cfg(feature = "parquet")]
#[test]
fn values_that_json_lacks_are_errors_only_in_columns_that_are_used() {
    let odd = fixture("odd.parquet");
    assert_eq!(read_prompts(&odd, &Columns::default()).unwrap().len(), 2);
    let used = |prompt: &str| {
        let columns = Columns { prompt: prompt.into(), ..Columns::default() };
        read_prompts(&odd, &columns)
    };
    assert_row_error(used("bytes"), 1, &["column \"bytes\" has bytes"]);
    assert_row_error(used("number"), 1, &["column \"number\" has a number that is not finite"]);
    assert_row_error(used("map"), 1, &["column \"map\" is an object"]);
    let brotli = read_prompts(&fixture("brotli.parquet"), &Columns::default()).unwrap_err().to_string();
    assert!(brotli.contains("compressed with Brotli: write it again with snappy"), "{brotli}");
}

#[test]
fn several_files_are_read_in_order_and_empty_ones_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("a.csv", "prompt\n"),
        ("b.jsonl", "{\"prompt\": \"1\"}\n{\"prompt\": \"2\"}\n"),
        ("c.csv", "x,prompt\n,3\n"),
    ];
    let paths = files.map(|(name, content)| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    });
    let rows = prompts(&paths, &Columns::default()).collect::<Result<Vec<_>>>().unwrap();
    let places = rows.iter().map(|row| (row.place.file.as_deref().unwrap(), row.place.line));
    assert_eq!(places.collect::<Vec<_>>(), [(&*paths[1], 1), (&*paths[1], 2), (&*paths[2], 2)]);
    assert_eq!(rows[2].prompt, plain("3"));
    let none = prompts(&paths[..1], &Columns::default()).collect::<Result<Vec<_>>>();
    assert_row_error(none, 1, &["no rows"]);
}

fn table(name: &str, content: &[u8]) -> Result<Vec<Prompt>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    read_prompts(&path, &Columns::default())
}

#[test]
fn an_error_in_a_table_names_its_line() {
    for (content, line, why) in [
        (&b"prompt,x\na,b\nc\n"[..], 3, "has 1 cell, but the header has 2"),
        (b"prompt,x\na,b,c\n", 2, "has 3 cells, but the header has 2"),
        (b"a,b\n1,2\n", 2, "no column \"prompt\" (the row has \"a\", \"b\")"),
        (b"prompt\n\xff\n", 2, "not UTF-8 text"),
        (b"prompt\n\"a\nb\"\n\"\"\nd,e\n", 5, "has 2 cells, but the header has 1"),
        (b"prompt\n", 1, "no rows"),
    ] {
        assert_row_error(table("x.csv", content), line, &[why]);
    }
    for (content, why) in [
        (&b"prompt,prompt\na,b\n"[..], "two columns \"prompt\""),
        (b"prompt,\xff\na,b\n", "its header is not UTF-8"),
    ] {
        let error = table("x.csv", content).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    let wide = ["a"; 1_000_000].join(",");
    let error = table("x.csv", format!("{wide}\n{wide}\n").as_bytes()).unwrap_err().to_string();
    assert!(error.contains("has 1000000 columns"), "{error}");
    let open = [b"prompt\n\"", &vec![b'a'; 70 << 20][..]].concat();
    let error = table("x.csv", &open).unwrap_err().to_string();
    assert!(error.contains("a row of more than 64 MiB"), "{error}");
    assert_eq!(table("x.tsv", b"x\tprompt\n1\ta,b\n").unwrap()[0].prompt, plain("a,b"));
    // JSON is detected under any name.
    assert_eq!(table("x.csv", b"{\"prompt\": \"a\"}\n").unwrap()[0].prompt, plain("a"));
}

#[test]
fn an_object_with_a_list_of_rows_is_told_from_json_lines() {
    let row = r#"{"prompt": "a"}"#;
    for text in [
        format!("{{\"data\": [{row}, {row}]}}"),
        format!("{{\"version\": \"]1\\\"\", \"n\": 2,\n \"rows\":\n [{row},\n{row}], \"more\": {{}}}}\n"),
        format!("{{\"train\": [{row},{row}], \"test\": [{{}}]}}"),
    ] {
        assert_eq!(
            read_prompts(file(text.as_bytes()).path(), &Columns::default()).unwrap().len(),
            2,
            "{text}"
        );
    }
    let line = "{\"data\": [{\"x\": 1}], \"prompt\": \"b\"}\n{\"prompt\": \"c\"}\n";
    assert_eq!(read_prompts(file(line.as_bytes()).path(), &Columns::default()).unwrap().len(), 2);
    let cut = format!("{{\"data\": [{row}, {row}]");
    let error = read_prompts(file(cut.as_bytes()).path(), &Columns::default()).unwrap_err().to_string();
    assert!(error.contains("before the end of its object"), "{error}");
    // Longer than a line may be.
    let long = format!("{{\"prompt\": \"a\", \"x\": \"{}\"}},", " ".repeat(100_000));
    let huge = format!("{{\"data\": [{}{row}]}}", long.repeat(700));
    assert_eq!(read_prompts(file(huge.as_bytes()).path(), &Columns::default()).unwrap().len(), 701);
}

#[cfg(feature = "parquet")]
#[test]
fn damaged_parquet_files_are_errors_without_a_panic() {
    let good = std::fs::read(fixture("tldr-preference.parquet")).unwrap();
    let read = |bytes: &[u8]| read_prompts(file(bytes).path(), &Columns::default());
    assert_eq!(read(&good).unwrap().len(), 4);
    for length in [4, 11, 12, 100, good.len() - 1] {
        let error = read(&good[..length]).unwrap_err().to_string();
        assert!(error.contains("without an end"), "{length}: {error}");
    }
    // Damages the footer and the lengths in it.
    let footer =
        good.len() - 8 - u32::from_le_bytes(good[good.len() - 8..][..4].try_into().unwrap()) as usize;
    for at in (4..good.len() - 4).step_by(3) {
        for change in [1, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= change;
            drop(read(&bad));
            if at > footer && at + 6 < good.len() - 8 {
                bad[at..at + 5].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
                drop(read(&bad));
            }
        }
    }
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_is_refused_by_the_name_of_the_feature() {
    let error = read_pairs(&fixture("tldr-preference.parquet"), &Columns::default()).unwrap_err().to_string();
    assert!(error.contains("feature parquet"), "{error}");
}

#[test]
fn an_absent_file_a_broken_gzip_and_parquet_are_clear_errors() {
    let absent = read_prompts(Path::new("no/such.jsonl"), &Columns::default()).unwrap_err();
    assert!(absent.to_string().starts_with("cannot read no/such.jsonl"), "{absent}");
    let broken = read_prompts(file(b"\x1f\x8b\x08\0\0").path(), &Columns::default()).unwrap_err();
    assert!(broken.to_string().starts_with("cannot decompress"), "{broken}");
    let parquet = read_prompts(file(b"PAR1\x15\x04").path(), &Columns::default()).unwrap_err();
    assert!(parquet.to_string().contains("is a Parquet file"), "{parquet}");
}

#[test]
fn a_column_that_is_null_is_absent() {
    let columns = Columns::default();
    let rows = |text: &str| read_completions(file(text.as_bytes()).path(), &columns).unwrap();
    let text = rows(r#"{"prompt": null, "completion": null, "text": "t", "messages": null}"#);
    assert_eq!((&text[0].prompt, &text[0].completion), (&None, &plain("t")));
    let prompts = file(br#"{"prompt": "p", "reference": null, "chosen": null, "rejected": null}"#);
    let prompts = read_prompts(prompts.path(), &columns).unwrap();
    assert_eq!((&prompts[0].prompt, &prompts[0].reference), (&plain("p"), &None));
    let implicit = pairs(r#"{"prompt": null, "chosen": "say A", "rejected": "say B"}"#).unwrap();
    assert_eq!(implicit[0].prompt, plain("say"));
    assert_row_error(
        pairs(r#"{"prompt": "q", "chosen": null, "rejected": "b"}"#),
        1,
        &["no column \"chosen\""],
    );
    let responses = file(br#"{"prompt": "q", "response_1": null, "response_2": "b"}"#);
    let parts = ["no column \"response_1\"", "rename a column of the file to \"response_1\""];
    assert_row_error(read_responses(responses.path(), &columns), 1, &parts);
    let none = file(br#"{"prompt": "None"}"#);
    assert_eq!(read_prompts(none.path(), &columns).unwrap()[0].prompt, plain("None"));
}

#[test]
fn json_that_only_python_accepts_is_an_error_only_in_columns_that_are_used() {
    for odd in ["NaN", "Infinity", "-Infinity", r#""\ud83d""#, r#""a\udc00b""#, "[1, {\"x\": NaN}]"] {
        let beside = format!(r#"{{"prompt": "a \ud83d\ude00 NaN", "score": {odd}, "more": [1]}}"#);
        for text in [beside.clone(), format!("[{beside},\n{beside}]")] {
            let rows = read_prompts(file(text.as_bytes()).path(), &Columns::default()).unwrap();
            assert_eq!(rows[0].prompt, plain("a 😀 NaN"));
        }
        let used = file(format!(r#"{{"prompt": {odd}}}"#).as_bytes());
        let rows = read_prompts(used.path(), &Columns::default());
        assert_row_error(rows, 1, &["column \"prompt\" has", "correct it or remove the row"]);
    }
    let message = file(br#"{"prompt": [{"role": "user", "content": "a\ud83d"}]}"#);
    assert_row_error(read_prompts(message.path(), &Columns::default()), 1, &["half of a surrogate pair"]);
    let broken = file(br#"{"prompt": "a", "score": NaN, oops}"#);
    assert_row_error(read_prompts(broken.path(), &Columns::default()), 1, &["not valid JSON"]);
}

#[test]
fn messages_and_conversations_have_no_prompt() {
    let expected = chat([("user", "q"), ("assistant", "a")]);
    for row in [
        r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#,
        r#"{"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]}"#,
    ] {
        let rows = read_completions(file(row.as_bytes()).path(), &Columns::default()).unwrap();
        assert_eq!((&rows[0].prompt, &rows[0].completion), (&None, &expected));
    }
}

fn variables(more: &str) -> Result<Value, Error> {
    let row = format!(r#"{{"prompt": [{{"role": "user", "content": "q"}}]{more}}}"#);
    let rows = read_prompts(file(row.as_bytes()).path(), &Columns::default())?;
    let Text::Chat(conversation) = &rows[0].prompt else { panic!() };
    Ok(Value::Object((*conversation.variables).clone()))
}

#[test]
fn conversations_have_the_tools_and_template_variables_of_their_row() {
    use serde_json::json;
    let tool = json!({"name": "f"});
    assert_eq!(variables(r#", "tools": [{"name": "f"}]"#).unwrap(), json!({"tools": [tool]}));
    assert_eq!(variables(r#", "tools": "[{\"name\": \"f\"}]""#).unwrap(), json!({"tools": [tool]}));
    assert_eq!(variables(r#", "tools": null, "chat_template_kwargs": null"#).unwrap(), json!({}));
    for none in ["[]", "\"[]\"", "\"null\""] {
        assert_eq!(variables(&format!(", \"tools\": {none}")).unwrap(), json!({"tools": null}));
    }
    let options =
        r#", "tools": [], "chat_template_kwargs": {"enable_thinking": false, "tools": [{"name": "f"}]}"#;
    assert_eq!(variables(options).unwrap(), json!({"tools": [tool], "enable_thinking": false}));
    assert_row_error(variables(r#", "tools": "[oops""#), 1, &["\"tools\" is not valid JSON"]);
    assert_row_error(variables(r#", "tools": {"name": "f"}"#), 1, &["\"tools\" is an object"]);
    assert_row_error(variables(r#", "tools": ["f"]"#), 1, &["expected a list of JSON schemas"]);
    assert_row_error(variables(r#", "chat_template_kwargs": []"#), 1, &["expected an object"]);
    let ours = variables(r#", "chat_template_kwargs": {"messages": []}"#);
    assert_row_error(ours, 1, &["cannot set \"messages\""]);
}

#[test]
fn a_message_may_have_parts_or_tool_calls_instead_of_text() {
    let prompt = |message: &str| {
        let row = format!(r#"{{"prompt": [{message}]}}"#);
        read_prompts(file(row.as_bytes()).path(), &Columns::default())
    };
    for good in [
        r#"{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}"#,
        r#"{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f"}}]}"#,
        r#"{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}"#,
        r#"{"role": "assistant", "reasoning_content": "so"}"#,
        r#"{"role": "tool", "name": "f", "content": {"sun": true}}"#,
    ] {
        prompt(good).unwrap();
    }
    for (bad, why) in [
        (r#"{"content": "a"}"#, "has no \"role\""),
        (r#"{"role": 1, "content": "a"}"#, "\"role\" is a number"),
        (r#"{"role": "user"}"#, "has no \"content\""),
        (r#"{"role": "user", "content": null}"#, "has no \"content\""),
        (r#"{"role": "user", "content": 1}"#, "\"content\" is a number"),
        (r#"{"role": "user", "content": [1]}"#, "a part of a message's \"content\" is a number"),
        (r#""hi""#, "a message is a string"),
    ] {
        assert_row_error(prompt(bad), 1, &["column \"prompt\"", why]);
    }
}

#[test]
fn a_transcript_keeps_every_text_of_a_message() {
    for (content, text) in [
        (r#""a""#, "a"),
        (r#"[{"type": "text", "text": "a "}, "b", {"type": "image", "url": "x"}]"#, "a b"),
        (r#"["a", "b"]"#, "ab"),
        (r#"{"type": "text", "text": "a"}"#, "a"),
        (r#"{"sun": true}"#, r#"{"sun":true}"#),
    ] {
        let row = format!(r#"{{"prompt": [{{"role": "user", "content": {content}}}]}}"#);
        let rows = read_prompts(file(row.as_bytes()).path(), &Columns::default()).unwrap();
        assert_eq!(rows[0].prompt.transcript(), format!("user: {text}"));
        assert!(!rows[0].prompt.is_empty(), "{content}");
    }
}

#[test]
fn errors_name_the_format_of_other_files() {
    for (bytes, what) in [
        (&b"PAR1\x15\x04"[..], "Parquet"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x28\xb5\x2f\xfdrest", "zstd"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\xff\xfe{\0", "UTF-16"),
        (b"\xfe\xff\0{", "UTF-16"),
        (b"prompt,chosen\na,b\n", "if it is a table"),
        (b"prompt\tchosen\na\tb\n", "if it is a table"),
        (b"{\n  \"prompt\": \"a\"\n}\n", "several lines"),
        (b"[{\"prompt\": \"a\"},]", "after the comma"),
        (b"[{\"prompt\": \"a\"}", "truncated"),
        (b"[{\"prompt\": \"a\"}] {}", "after the end of the array"),
        (b"{\"prompt\": \"a\0\"}", "control character"),
    ] {
        let error = read_prompts(file(bytes).path(), &Columns::default()).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = read_prompts(folder.path(), &Columns::default()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
}

#[test]
fn a_decompression_bomb_is_an_error() {
    let gzip = |text: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    let row = gzip("{\"prompt\": \"a\"}\n");
    let padded = format!("{{\"prompt\": \"a\", \"x\": \"{}\"}}\n", " ".repeat(100_000));
    let bomb = [row.clone(), gzip(&padded.repeat(300)).repeat(10)].concat();
    let error = read_prompts(file(&bomb).path(), &Columns::default()).unwrap_err().to_string();
    assert!(error.contains("cannot decompress") && error.contains("more than 256 MiB"), "{error}");
    let cut = read_prompts(file(&row[..row.len() / 2]).path(), &Columns::default()).unwrap_err();
    assert!(cut.to_string().starts_with("cannot decompress"), "{cut}");
    assert_row_error(read_prompts(file(&gzip("")).path(), &Columns::default()), 1, &["no rows"]);
}

#[test]
fn a_line_that_is_too_long_is_an_error() {
    let long = file(&[b"{\"prompt\": \"", &vec![b'a'; 65 << 20][..]].concat());
    let error = read_prompts(long.path(), &Columns::default()).unwrap_err().to_string();
    assert!(error.contains("a line of more than 64 MiB"), "{error}");
}

#[test]
fn real_datasets_are_read() {
    let columns = Columns::default();
    let Some(hh) = shared("data/hh_harmless_base_test.jsonl.gz") else { return };
    let rows = read_pairs(&hh, &columns).unwrap();
    assert_eq!(rows.len(), 2312);
    for Pair { prompt, chosen, place: Place { line, .. }, .. } in &rows {
        let (Text::Plain(prompt), Text::Plain(chosen)) = (prompt, chosen) else { panic!("line {line}") };
        assert!(prompt.starts_with("\n\nHuman: ") && prompt.ends_with("\n\nAssistant:"), "line {line}");
        assert!(chosen.starts_with(' ') && !chosen.contains("\n\nHuman:"), "line {line}");
    }
    assert_eq!(read_prompts(&hh, &columns).unwrap().len(), 2312);
    let tldr = shared("data/tldr_preferences.jsonl").unwrap();
    assert_eq!(read_pairs(&tldr, &columns).unwrap().len(), 1000);
    assert_eq!(read_prompts(&tldr, &columns).unwrap().len(), 1000);
    let tldr = read_prompts(&shared("data/tldr_prompts.jsonl").unwrap(), &columns).unwrap();
    assert_eq!((tldr.len(), tldr.iter().filter(|p| p.reference.is_some()).count()), (1945, 1945));
    assert_eq!(read_completions(&shared("data/tinystories.jsonl").unwrap(), &columns).unwrap().len(), 2316);
    assert_eq!(
        read_prompts(&shared("data/tinystories_prompts.jsonl").unwrap(), &columns).unwrap().len(),
        2314
    );
}
