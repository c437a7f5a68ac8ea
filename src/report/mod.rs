//! Reports: HTML pages that contain their styles, drawings and texts and run no script. They open from the file system, in
//! light and dark mode, on a phone and in print. [`Report::of_run`] reports the run in a folder, finished or not, and
//! [`Report::comparing`] compares several runs. A program can add its own sections, or build a report from scratch:
//!
//! ```
//! use oaif::unstable::report::{Bars, Estimate, KeyFigure, Report, Sample, Section, Table, Unit};
//! let rate = Estimate::share(161, 200);
//! let mut report = Report::new("A story teller, aligned");
//! report.figure(KeyFigure::new("Win rate", "80.5 %").note("74.5 to 85.4 %"));
//! report.add(
//!     Section::new("Against the starting model")
//!         .text("On 200 held-out prompts.")
//!         .bars(Bars::new("Win rate").unit(Unit::Share).level(0.5).group("DPO", [rate]))
//!         .table(Table::new(["loss", "wins"]).row(["DPO".into(), (rate, Unit::Share).into()]))
//!         .sample(Sample::new("Sam found a").response("before", "dog dog").preferred("after", "dog in the garden.")),
//! );
//! let html = report.html();
//! assert!(html.contains("80.5\u{a0}%") && !html.contains("://"));
//! ```
//!
//! [`Plot::svg`] and [`Bars::svg`] return single charts as SVG files.

mod bars;
mod charts;
mod compare;
mod eval;
mod page;
mod plot;
mod run;
mod run_logs;
mod run_result;
mod run_sections;
mod scale;
mod section;
mod svg;
mod terms;

pub use bars::Bars;
pub use page::{KeyFigure, Report};
pub use plot::{Plot, Series, smoothing_window};
#[cfg(all(feature = "cli", feature = "ui"))]
pub(crate) use run::Run;
pub use run::without_commit;
pub use run_logs::RunEnds;
pub use run_result::{length_change, rate_in_words, unclear};
pub use scale::{Estimate, Unit, number};
pub use section::{Cell, Sample, Section, Table};
pub use svg::escape;
