//! The statistics compared with scipy, statsmodels, scikit-learn and AlpacaEval's published results, from
//! tests/fixtures/eval.json (made by tests/fixtures/make_eval.py, which names the versions).

use oaif::unstable::eval::agreement::cohen_kappa;
use oaif::unstable::eval::alpaca_eval::{self, AlpacaPrompt, AlpacaWeights, Anchor, Strength};
use oaif::unstable::eval::bootstrap::Bootstrap;
use oaif::unstable::eval::comparison::{Comparison, Decision};
use oaif::unstable::eval::files::{JudgedAs, read_alpaca_anchors, read_judgements};
use oaif::unstable::eval::interval::{mean_with_error, normal_interval, wilson, wilson_interval, z_of_level};
use oaif::unstable::eval::judged::judged_models;
use oaif::unstable::eval::length_control::{LengthControl, length_controlled};
use oaif::unstable::eval::logistic::{Penalty, Regression};
use oaif::unstable::eval::normal;
use serde_json::Value;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/eval.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn num(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn nums(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(num).collect()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn near(name: &str, ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() <= tolerance, "{name}: ours {ours}, theirs {theirs}");
}

#[test]
fn wilson_equals_statsmodels() {
    for case in list(&fixture()["wilson"]) {
        let (wins, trials) = (num(&case["wins"]), num(&case["trials"]));
        let ours = wilson(wins, trials, z_of_level(num(&case["level"])).unwrap());
        near(&case.to_string(), ours.low, num(&case["low"]), 1e-11);
        near(&case.to_string(), ours.high, num(&case["high"]), 1e-11);
        if num(&case["level"]) == 0.95 {
            let (low, high) = wilson_interval(wins as usize, trials as usize);
            near("95 %", low, num(&case["low"]), 1e-12);
            near("95 %", high, num(&case["high"]), 1e-12);
        }
    }
}

#[test]
fn the_normal_distribution_equals_scipy() {
    for case in list(&fixture()["normal"]) {
        let (x, p) = (num(&case["x"]), num(&case["cdf"]));
        near("cdf", normal::cdf(x), p, 1e-15);
        near("quantile", normal::quantile(p), x, if x.abs() < 4.0 { 1e-9 } else { 1e-5 });
    }
}

#[test]
fn bootstrap_intervals_equal_scipy_within_simulation_noise() {
    for case in list(&fixture()["bootstrap"]) {
        let (name, values) = (case["name"].as_str().unwrap(), nums(&case["values"]));
        // An end is a quantile of the resampled means: with R resamples its noise is √(0.025·0.975/R)/density ≈ 2.7
        // σ/√R. The means of such data lie on a grid of half a prompt, and an end may fall on either side of a grid
        // point.
        let bootstrap = Bootstrap { resamples: 40_000, seed: 11, level: 0.95 };
        let grid = 0.5 / values.len() as f64;
        let sigma = num(&case["bootstrap_standard_error"]);
        let tolerance = 4.0 * 2.7 * sigma * (1.0 / 40_000f64 + 1.0 / 100_000.0).sqrt()
            + if name == "soft_120" { 0.0 } else { grid };
        for (method, ours) in
            [("percentile", bootstrap.percentile_mean(&values)), ("bca", bootstrap.bca_mean(&values))]
        {
            let (ours, theirs) = (ours.unwrap(), nums(&case[method]));
            println!(
                "{name} {method}: ours {:.5} {:.5}, scipy {:.5} {:.5}",
                ours.low, ours.high, theirs[0], theirs[1]
            );
            near(&format!("{name} {method} low, seed 11"), ours.low, theirs[0], tolerance);
            near(&format!("{name} {method} high, seed 11"), ours.high, theirs[1], tolerance);
        }
        let mean = mean_with_error(&values).unwrap();
        near(name, mean.mean, num(&case["mean"]), 1e-13);
        near(name, mean.standard_error, num(&case["sem"]), 1e-13);
        let normal = normal_interval(&values, 0.95).unwrap();
        near(name, normal.low, nums(&case["normal"])[0], 1e-10);
        near(name, normal.high, nums(&case["normal"])[1], 1e-10);
    }
}

#[test]
fn logistic_regression_equals_statsmodels_and_sklearn() {
    let mut worst = [0.0f64; 3];
    for case in list(&fixture()["logistic"]) {
        let mut rows = Regression::new(3).unwrap();
        let weight = nums(&case["weight"]);
        for ((x, y), w) in list(&case["x"]).iter().zip(nums(&case["y"])).zip(weight) {
            rows.push(&nums(x), y, w).unwrap();
        }
        let mut compare = |slot: usize, penalty: Penalty, theirs: &Value, tolerance: f64| {
            let fit = rows.fit(penalty).unwrap();
            for (ours, theirs) in fit.coefficients.iter().zip(nums(theirs)) {
                worst[slot] = worst[slot].max((ours - theirs).abs());
                near(&format!("{} {penalty:?}", case["name"]), *ours, theirs, tolerance);
            }
        };
        compare(0, Penalty::None, &case["statsmodels"], 1e-8);
        for fit in list(&case["l2"]) {
            compare(1, Penalty::L2 { strength: 1.0 / num(&fit["C"]) }, &fit["coefficients"], 1e-6);
        }
        for fit in list(&case["l1"]) {
            compare(2, Penalty::L1 { strength: 1.0 / num(&fit["C"]) }, &fit["coefficients"], 1e-6);
        }
    }
    println!(
        "largest differences: statsmodels {:.1e}, sklearn L2 {:.1e}, sklearn L1 {:.1e}",
        worst[0], worst[1], worst[2]
    );
}

#[test]
fn the_simple_length_control_equals_sklearn() {
    for case in list(&fixture()["length_control"]) {
        let outcomes: Vec<Comparison> = nums(&case["preference"])
            .iter()
            .zip(nums(&case["length_a"]).iter().zip(nums(&case["length_b"])))
            .map(|(p, (a, b))| Comparison::single(Some(*p), *a, b).unwrap())
            .collect();
        let settings = LengthControl {
            l2_strength: num(&case["l2_strength"]),
            bootstrap: Bootstrap { resamples: 200, ..Bootstrap::default() },
        };
        let ours = length_controlled(&outcomes, &settings).unwrap();
        near("theta", ours.theta, num(&case["theta"]), 1e-6);
        near("phi", ours.phi, num(&case["phi"]), 1e-6);
        near("win rate", ours.win_rate, num(&case["win_rate"]), 1e-6);
        assert!(ours.interval.contains(ours.win_rate), "{ours:?}");
    }
}

#[test]
fn kappa_equals_sklearn_and_its_standard_errors_equal_statsmodels() {
    let verdicts = |value: &Value| -> Vec<Decision> {
        nums(value).iter().map(|v| [Decision::Win, Decision::Tie, Decision::Loss][*v as usize]).collect()
    };
    for case in list(&fixture()["kappa"]) {
        let ours = cohen_kappa(&verdicts(&case["first"]), &verdicts(&case["second"])).unwrap();
        let name = case["name"].as_str().unwrap();
        println!(
            "{name}: kappa ours {:.12} sklearn {:.12}; se ours {:.12} statsmodels {:.12}",
            ours.kappa.unwrap(),
            num(&case["kappa"]),
            ours.standard_error.unwrap(),
            num(&case["standard_error"])
        );
        near(name, ours.kappa.unwrap(), num(&case["kappa"]), 1e-12);
        near(name, ours.standard_error.unwrap(), num(&case["standard_error"]), 1e-12);
        near(name, ours.standard_error_at_zero.unwrap(), num(&case["standard_error_at_zero"]), 1e-12);
        near(name, ours.agreement.share.unwrap(), num(&case["agreement"]), 1e-12);
    }
}

fn weights(value: &Value) -> AlpacaWeights {
    let w = nums(value);
    AlpacaWeights { length: w[0], difficulty: w[1], model: w[2] }
}

fn anchors(alpaca: &Value, difficulty: &[f64]) -> Vec<Anchor> {
    let both = list(&alpaca["anchor_standardised_difference"]).iter().zip(list(&alpaca["anchor_preference"]));
    both.flat_map(|(z, y)| {
        nums(z).into_iter().zip(nums(y)).zip(difficulty).map(|((z, y), g)| Anchor {
            preference: y,
            standardised_difference: z,
            difficulty: *g,
        })
    })
    .collect()
}

#[test]
fn published_weights_give_published_length_controlled_win_rates() {
    let alpaca = &fixture()["alpaca"];
    let difficulty = nums(&alpaca["difficulty"]);
    let mut off = Vec::new();
    let rows = list(&alpaca["read_out"]);
    for row in rows {
        let ours = 100.0
            * alpaca_eval::read_out(&weights(&row["weights"]), difficulty.iter().copied()).unwrap().mean;
        let difference = ours - num(&row["win_rate"]);
        if difference.abs() > 1e-6 {
            off.push((row["model"].as_str().unwrap().to_owned(), difference));
        }
    }
    println!("{} models, {} not within 1e-6 points: {off:?}", rows.len(), off.len());
    // Six of these have fewer than 805 judgements; the weights and results of the others were published at different
    // times.
    assert!(rows.len() >= 199 && off.len() <= 10, "{off:?}");
}

#[test]
fn the_fit_gives_published_results_and_sklearns_coefficients() {
    let fixture = fixture();
    let alpaca = &fixture["alpaca"];
    let difficulty = nums(&alpaca["difficulty"]);
    let anchors = anchors(alpaca, &difficulty);
    for (model, row) in alpaca["models"].as_object().unwrap() {
        let preferences = nums(&row["preference"]);
        let rate = alpaca_eval::win_rate(&preferences).unwrap();
        near(model, 100.0 * rate.win_rate, num(&row["win_rate"]), 2e-8);
        near(model, 100.0 * rate.standard_error, num(&row["standard_error"]), 2e-8);
        near(model, 100.0 * rate.discrete_win_rate, num(&row["discrete_win_rate"]), 1e-9);
        for (ours, key) in [
            (rate.n_wins, "n_wins"),
            (rate.n_wins_base, "n_wins_base"),
            (rate.n_draws, "n_draws"),
            (rate.n_total, "n_total"),
        ] {
            assert_eq!(ours as f64, num(&row[key]), "{model} {key}");
        }
        let prompts: Vec<AlpacaPrompt> = preferences
            .iter()
            .zip(nums(&row["length_1"]).iter().zip(nums(&row["length_2"])))
            .zip(&difficulty)
            .map(|((p, (one, two)), g)| AlpacaPrompt {
                preference: *p,
                baseline_length: *one,
                model_length: two,
                difficulty: *g,
            })
            .collect();
        let strength = Strength::Fixed(num(&row["C_of_weights"]));
        let fit = alpaca_eval::length_controlled(&prompts, &anchors, strength).unwrap();
        let sklearn = nums(&row["sklearn_weights"]);
        for (ours, theirs) in
            [fit.weights.length, fit.weights.difficulty, fit.weights.model].iter().zip(sklearn)
        {
            near(&format!("{model} sklearn"), *ours, theirs, 1e-6);
        }
        near(model, fit.win_rate, num(&row["sklearn_win_rate"]), 1e-6);
        near(model, 100.0 * fit.win_rate, num(&row["length_controlled_winrate"]), 0.01);
        let chosen =
            alpaca_eval::length_controlled(&prompts, &anchors, Strength::CrossValidated { folds: 5 })
                .unwrap();
        near(model, 100.0 * chosen.win_rate, num(&row["length_controlled_winrate"]), 0.15);
    }
}

/// Reads all judgement files that make_eval.py wrote into $OAIF_EVAL_ALPACA and prints our results next to the
/// published ones.
#[test]
#[ignore = "needs the folder that make_eval.py makes: OAIF_EVAL_ALPACA=FOLDER"]
fn published_annotations_give_published_results() {
    let folder =
        std::env::var("OAIF_EVAL_ALPACA").expect("set OAIF_EVAL_ALPACA to the folder that make_eval.py made");
    let published: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{folder}/published.json")).unwrap()).unwrap();
    let difficulty = nums(&published["difficulty"]);
    let anchors = anchors(&published, &difficulty);
    println!(
        "| model | n | win rate ours | theirs | s.e. ours | theirs | LC theirs | LC, their C | diff | LC, our CV | diff | C theirs | C ours | LC no anchors |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let (mut same_c, mut with_c, mut plain) = (0, 0, [0.0f64; 2]);
    let (mut fixed, mut ours_cv, mut none) = (Vec::new(), Vec::new(), Vec::new());
    for (model, row) in published["models"].as_object().unwrap() {
        let path = format!("{folder}/{model}.annotations.json");
        let prompts: Vec<AlpacaPrompt> = read_judgements(path.as_ref())
            .unwrap()
            .records
            .iter()
            .zip(&difficulty)
            .map(|(record, g)| {
                let JudgedAs::Once(Some(preference)) = record.verdict else { panic!() };
                let [model_length, baseline_length] = record.lengths.unwrap();
                AlpacaPrompt { preference, baseline_length, model_length, difficulty: *g }
            })
            .collect();
        let rate = alpaca_eval::win_rate(&prompts.iter().map(|p| p.preference).collect::<Vec<_>>()).unwrap();
        let (win, se) = (100.0 * rate.win_rate, 100.0 * rate.standard_error);
        plain[0] = plain[0].max((win - num(&row["win_rate"])).abs());
        plain[1] = plain[1].max((se - num(&row["standard_error"])).abs());
        near(model, win, num(&row["win_rate"]), 1e-8);
        near(model, se, num(&row["standard_error"]), 1e-8);
        assert_eq!(
            (rate.n_wins as u64, rate.n_draws as u64),
            (row["n_wins"].as_u64().unwrap(), row["n_draws"].as_u64().unwrap())
        );
        if model == "gpt4_1106_preview" {
            continue; // The baseline itself, which is 50 by definition.
        }
        let theirs = num(&row["length_controlled_winrate"]);
        let cv = alpaca_eval::length_controlled(&prompts, &anchors, Strength::CrossValidated { folds: 5 })
            .unwrap();
        let noreg =
            alpaca_eval::length_controlled(&prompts, &[], Strength::CrossValidated { folds: 5 }).unwrap();
        let c = row["C_of_weights"].as_f64();
        let at_c = c.map(|c| {
            100.0 * alpaca_eval::length_controlled(&prompts, &anchors, Strength::Fixed(c)).unwrap().win_rate
        });
        let show = |x: Option<f64>, digits: usize| x.map_or("".into(), |x| format!("{x:.digits$}"));
        println!(
            "| {model} | {} | {win:.6} | {:.6} | {se:.6} | {:.6} | {theirs:.4} | {} | {} | {:.4} | {:+.4} | {} | {:.2} | {:.4} |",
            prompts.len(),
            num(&row["win_rate"]),
            num(&row["standard_error"]),
            show(at_c, 4),
            show(at_c.map(|x| x - theirs), 4),
            100.0 * cv.win_rate,
            100.0 * cv.win_rate - theirs,
            show(c, 2),
            cv.inverse_strength,
            100.0 * noreg.win_rate,
        );
        if let (Some(c), Some(x)) = (c, at_c) {
            with_c += 1;
            same_c += usize::from((c / cv.inverse_strength - 1.0).abs() < 1e-6);
            fixed.push((x - theirs).abs());
        }
        ours_cv.push((100.0 * cv.win_rate - theirs).abs());
        none.push((100.0 * noreg.win_rate - theirs).abs());
    }
    for (name, mut d) in [("their C", fixed), ("our cross-validation", ours_cv), ("no anchors", none)] {
        d.sort_by(f64::total_cmp);
        println!(
            "{name}: {} models, |difference| median {:.5}, mean {:.5}, 90 % {:.5}, max {:.5}",
            d.len(),
            d[d.len() / 2],
            d.iter().sum::<f64>() / d.len() as f64,
            d[d.len() * 9 / 10],
            d[d.len() - 1]
        );
    }
    println!("the same C: {same_c} of {with_c}");
    println!("largest difference of win rates {:.1e}, of standard errors {:.1e} points", plain[0], plain[1]);
}

#[test]
fn a_file_of_annotations_and_df_gamed_give_the_published_length_controlled_win_rate() {
    let fixture = fixture();
    let alpaca = &fixture["alpaca"];
    let difficulty = nums(&alpaca["difficulty"]);
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("df_gamed");
    std::fs::create_dir_all(&folder).unwrap();
    let mut csv =
        "preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline,model\n".to_owned();
    for (i, Anchor { preference, standardised_difference, difficulty: own }) in
        anchors(alpaca, &difficulty).iter().enumerate()
    {
        let index = i % difficulty.len();
        csv += &format!("{preference},{index},{standardised_difference},{own},False,gamed\n");
    }
    std::fs::write(folder.join("df_gamed.csv"), csv).unwrap();
    let gamed = read_alpaca_anchors(&folder.join("df_gamed.csv")).unwrap();
    assert_eq!(gamed.difficulties, difficulty);
    let row = &alpaca["models"]["wizardlm-13b"];
    let lengths = nums(&row["length_1"]).into_iter().zip(nums(&row["length_2"]));
    let text = |length: f64| "a".repeat(length as usize);
    let rows: Vec<Value> = nums(&row["preference"])
        .into_iter()
        .zip(lengths)
        .map(|(p, (one, two))| {
            serde_json::json!({
                "instruction": "x", "output_1": text(one), "generator_1": "base", "output_2": text(two),
                "generator_2": "wizardlm-13b", "preference": 1.0 + p,
            })
        })
        .collect();
    std::fs::write(folder.join("annotations.json"), serde_json::to_string(&rows).unwrap()).unwrap();
    let judgements = read_judgements(&folder.join("annotations.json")).unwrap();
    let models = judged_models(&judgements, Some(&gamed)).unwrap();
    let figures = models[0].compared.as_ref().unwrap();
    near("win rate", 100.0 * figures.mean_preference.unwrap().mean, num(&row["win_rate"]), 1e-6);
    let ours = 100.0 * figures.alpaca_eval.as_ref().unwrap().win_rate;
    near("length-controlled", ours, num(&row["length_controlled_winrate"]), 0.15);
}
