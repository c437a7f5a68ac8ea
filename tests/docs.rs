//! The documentation: every link leads to a file or heading that exists, every page that a comment names exists, and every page
//! of the book is in its summary. Also the rules of the Makefile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The book's folder, and the files beside it that are checked as well.
const BOOK: &str = "docs";
const BESIDE: [&str; 4] = ["CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"];
const SUMMARY: &str = "docs/SUMMARY.md";
/// The start of a file's address. docs.rs shows comments without the files beside them.
const ADDRESS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Markdown file, by its path from the root.
struct Page {
    path: PathBuf,
    /// The text with code replaced by spaces, so that offsets and line numbers stay the same.
    prose: String,
    /// The anchors of its headings.
    anchors: BTreeSet<String>,
}

/// A link of a page: its line and its target.
struct Link {
    line: usize,
    target: String,
}

impl Page {
    fn read(path: &Path) -> Page {
        let text =
            fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Page::new(path, &text)
    }

    fn new(path: &Path, text: &str) -> Page {
        let without_blocks = without_code_blocks(&text.replace("\r\n", "\n"));
        Page {
            path: path.to_owned(),
            anchors: anchors(&without_blocks),
            prose: without_code_spans(&without_blocks),
        }
    }

    /// Links in Markdown, `[text](target)`, `![text](target)` and `[name]: target`, and in HTML, `href` and `src`.
    fn links(&self) -> Vec<Link> {
        let text = &self.prose;
        let mut found = Vec::new();
        let mut add = |at: usize, target: &str| {
            let target = target.trim().trim_start_matches('<').trim_end_matches('>');
            found.push(Link { line: 1 + text[..at].matches('\n').count(), target: target.to_owned() });
        };
        for (at, _) in text.match_indices("](") {
            let rest = &text[at + 2..];
            if let Some(end) = closing(rest) {
                // A title may follow the target.
                add(at, rest[..end].split_whitespace().next().unwrap_or_default());
            }
        }
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if let Some((_, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
                add(at, target.split_whitespace().next().unwrap_or_default());
            }
            at += line.len();
        }
        for attribute in ["href=\"", "src=\""] {
            for (at, _) in text.match_indices(attribute) {
                let rest = &text[at + attribute.len()..];
                add(at, rest.split('"').next().unwrap_or_default());
            }
        }
        found.sort_by_key(|link| link.line);
        found
    }
}

/// The position of the parenthesis that closes a target, which may contain pairs of parentheses.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => open += 1,
            ')' if open == 0 => return Some(at),
            ')' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Replaces everything except line ends by spaces.
fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { "\n".into() } else { " ".repeat(c.len_utf8()) }).collect()
}

/// Replaces fenced code blocks by spaces.
fn without_code_blocks(text: &str) -> String {
    let (mut out, mut fence) = (String::new(), None);
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        let marks = |mark: char| start.chars().take_while(|c| *c == mark).count();
        let opens = ['`', '~'].into_iter().find(|mark| marks(*mark) >= 3).map(|mark| (mark, marks(mark)));
        match (fence, opens) {
            (None, None) => out += line,
            (None, Some(_)) => {
                fence = opens;
                out += &blank(line);
            }
            (Some((mark, count)), _) => {
                let closes = marks(mark) >= count && start.trim_end().chars().all(|c| c == mark);
                if closes {
                    fence = None;
                }
                out += &blank(line);
            }
        }
    }
    out
}

/// Replaces code between backticks by spaces.
fn without_code_spans(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find('`') {
        let ticks = rest[start..].chars().take_while(|c| *c == '`').count();
        let body = start + ticks;
        let end = code_end(&rest[body..], ticks);
        out += &rest[..start];
        match end {
            None => {
                out += &rest[start..body];
                rest = &rest[body..];
            }
            Some(end) => {
                out += &blank(&rest[start..body + end]);
                rest = &rest[body + end..];
            }
        }
    }
    out + rest
}

/// The end of a code span that was opened by `ticks` backticks, after the same number of backticks; `None` if the paragraph
/// ends first.
fn code_end(text: &str, ticks: usize) -> Option<usize> {
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let mut at = 0;
    while let Some(found) = paragraph[at..].find('`') {
        let start = at + found;
        let count = paragraph[start..].chars().take_while(|c| *c == '`').count();
        at = start + count;
        if count == ticks {
            return Some(at);
        }
    }
    None
}

/// The anchors of the headings in a text without code blocks. Anchors of equal headings are numbered.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = BTreeSet::new();
    for line in text.lines() {
        let level = line.chars().take_while(|c| *c == '#').count();
        let Some(heading) = (1..=6).contains(&level).then(|| line[level..].strip_prefix(' ')).flatten()
        else {
            continue;
        };
        let anchor = anchor(heading);
        let earlier = seen.entry(anchor.clone()).or_default();
        out.insert(if *earlier == 0 { anchor } else { format!("{anchor}-{earlier}") });
        *earlier += 1;
    }
    out
}

/// A heading's anchor, as GitHub and mdBook make it: letters and digits in lower case, `-` and `_`, and `-` for each space.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    };
    without_targets(heading.trim().trim_end_matches('#').trim())
        .to_lowercase()
        .chars()
        .filter_map(kept)
        .collect()
}

/// A heading in which links are replaced by their text.
fn without_targets(heading: &str) -> String {
    let (mut out, mut rest) = (String::new(), heading);
    while let Some(at) = rest.find("](") {
        out += &rest[..at];
        let target = &rest[at + 2..];
        rest = closing(target).map_or("", |end| &target[end + 1..]);
    }
    out + rest
}

/// The files with an extension below a folder, by their paths from the root.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry of it");
            let path = folder.join(entry.file_name());
            match entry.file_type().expect("its type").is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == extension) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// The paths below the book's folder that the comments of a Rust file name, from the root or by address, with their lines.
fn named_in_comments(text: &str) -> Vec<(usize, String)> {
    let of_path = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
        for word in comment.replace(ADDRESS, "").split(|c: char| !of_path(c)) {
            let path = word.trim_end_matches('.');
            if path.strip_prefix(BOOK).is_some_and(|rest| rest.starts_with('/')) {
                found.push((at + 1, path.to_owned()));
            }
        }
    }
    found
}

/// The path from the root of the link target `target` on the page at `from`; `None` if it is outside the root.
fn resolved(from: &Path, target: &str) -> Option<PathBuf> {
    let mut out = from.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            Component::ParentDir if out.pop() => {}
            _ => return None,
        }
    }
    Some(out)
}

/// Why a link of `page` is broken, if it is.
fn broken(page: &Page, target: &str, pages: &BTreeMap<PathBuf, Page>) -> Option<String> {
    let scheme = target.split(['/', '#', '?']).next().is_some_and(|start| start.contains(':'));
    if scheme || target.starts_with("//") {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = match file {
        "" if anchor.is_none() => return Some("is empty".into()),
        "" => page.path.clone(),
        _ => match resolved(&page.path, &file.replace("%20", " ")) {
            Some(path) => path,
            None => return Some("leads out of the project".into()),
        },
    };
    if !root().join(&path).exists() {
        return Some(format!("{} does not exist", path.display()));
    }
    // Only the book's folder is copied into the book.
    if page.path.starts_with(BOOK) && !path.starts_with(BOOK) {
        return Some(format!("{} is outside of the book: name it without a link", path.display()));
    }
    let anchor = anchor?;
    let known = pages.get(&path)?;
    (!known.anchors.contains(anchor)).then(|| format!("{} has no heading #{anchor}", path.display()))
}

#[test]
fn no_link_of_the_docs_is_broken() {
    let paths = files(BOOK, "md").into_iter().chain(BESIDE.map(PathBuf::from));
    let pages: BTreeMap<PathBuf, Page> = paths.map(|path| (path.clone(), Page::read(&path))).collect();
    let mut wrong = Vec::new();
    for page in pages.values() {
        for Link { line, target } in page.links() {
            if let Some(why) = broken(page, &target, &pages) {
                wrong.push(format!("{}:{line}: ({target}) {why}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} broken links:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_page_is_in_the_summary() {
    let summary = Page::read(Path::new(SUMMARY));
    let listed: Vec<PathBuf> =
        summary.links().iter().filter_map(|link| resolved(&summary.path, &link.target)).collect();
    let missing =
        files(BOOK, "md").into_iter().filter(|page| page != Path::new(SUMMARY) && !listed.contains(page));
    let twice = listed.iter().enumerate().filter(|(at, page)| listed[..*at].contains(page));
    let wrong: Vec<String> = missing
        .map(|page| format!("{} is not in {SUMMARY}", page.display()))
        .chain(twice.map(|(_, page)| format!("{} is in {SUMMARY} twice", page.display())))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_that_a_comment_names_exists() {
    let mut wrong = Vec::new();
    for file in files("src", "rs") {
        let text = fs::read_to_string(root().join(&file)).expect("a Rust file");
        for (line, path) in named_in_comments(&text) {
            if !root().join(&path).exists() {
                wrong.push(format!("{}:{line}: {path} does not exist", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pages_are_found_in_comments_by_path_and_by_address() {
    let text = format!(
        "//! See `docs/a.md`, docs/b/c.md.\n    /// [`d`]: {ADDRESS}docs/d.md\n// https://e.org/docs/e.md\nlet f = \"docs/f.md\";\n"
    );
    let expected = [(1, "docs/a.md"), (1, "docs/b/c.md"), (2, "docs/d.md")];
    assert_eq!(named_in_comments(&text), expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn every_rule_of_the_makefile_is_phony_and_nothing_else_is() {
    let text = fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    let phony: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(".PHONY:"))
        .flat_map(str::split_whitespace)
        .collect();
    let rules: BTreeSet<&str> = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect();
    assert_eq!(phony, rules);
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# `--judge llm`: a model\n## A & B\n## A & B\n### The [paper](x.md)'s (2024)\n```\n# no heading\n```\n#hash\n";
    let page = Page::new(Path::new("docs/x.md"), text);
    let expected = ["--judge-llm-a-model", "a--b", "a--b-1", "the-papers-2024"];
    assert_eq!(page.anchors.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn links_in_code_are_ignored() {
    let text = "A [link\nover lines](a.md#b) `[no](c.md)` ![i](d.svg \"title\")\n```\n[no](e.md)\n```\n[f]: f.md\n<a href=\"g.md\">\n";
    let page = Page::new(Path::new("docs/x.md"), text);
    let found: Vec<(usize, String)> = page.links().into_iter().map(|link| (link.line, link.target)).collect();
    let expected = [(2, "a.md#b"), (2, "d.svg"), (6, "f.md"), (7, "g.md")];
    assert_eq!(found, expected.map(|(line, target)| (line, target.to_owned())));
}
