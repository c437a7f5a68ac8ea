//! Reports: a page that contains its styles, drawings and texts, opens from the file system, in light and dark, on a phone
//! and on paper, and runs no script. [`Report::of_run`] makes one of a run's folder, finished or not, and
//! [`Report::comparing`] one of several. A program adds its own sections, or builds a report from nothing:
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
//! [`Plot::svg`] and [`Bars::svg`] give single pictures as files.

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
pub use run_logs::RunEnds;
pub use run_result::{length_change, rate_in_words, unclear};
pub use scale::{Estimate, Unit, number};
pub use section::{Cell, Sample, Section, Table};
pub use svg::escape;
