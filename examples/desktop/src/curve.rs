//! A plot of values by step.

use eframe::egui::{Align2, Color32, FontId, Sense, Stroke, Ui, pos2, vec2};

/// The maximum number of points that are drawn.
const POINTS: usize = 400;

/// Draws all values, scaled to their minimum and maximum.
pub fn curve(ui: &mut Ui, name: &str, height: f32, colour: Color32, values: impl Iterator<Item = f64>) {
    let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    let last = values.last().map_or(String::new(), |last| format!("{last:.3}"));
    ui.label(format!("{name} {last}"));
    let (response, painter) = ui.allocate_painter(vec2(ui.available_width(), height), Sense::hover());
    let area = response.rect;
    painter.rect_filled(area, 2.0, ui.visuals().extreme_bg_color);
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
    if values.is_empty() {
        return;
    }
    let inner = area.shrink2(vec2(6.0, 16.0));
    let at = |(i, value): (usize, &f64)| {
        let x = i as f32 / (values.len() - 1).max(1) as f32;
        let y = ((value - low) / (high - low).max(1e-12)) as f32;
        pos2(inner.left() + x * inner.width(), inner.bottom() - y * inner.height())
    };
    let stride = values.len().div_ceil(POINTS);
    let points: Vec<_> = values.iter().enumerate().step_by(stride).map(at).collect();
    match points[..] {
        [point] => drop(painter.circle_filled(point, 2.0, colour)),
        _ => drop(painter.line(points, Stroke::new(1.5, colour))),
    }
    let (font, weak) = (FontId::proportional(11.0), ui.visuals().weak_text_color());
    painter.text(area.left_top(), Align2::LEFT_TOP, format!("{high:.3}"), font.clone(), weak);
    painter.text(area.left_bottom(), Align2::LEFT_BOTTOM, format!("{low:.3}"), font, weak);
}
