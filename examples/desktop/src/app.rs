//! The content of the window: the pair to judge, the curves, the chat.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use eframe::egui::{
    self, Align, Button, CentralPanel, Color32, Event, Frame, Key, Label, Layout, Panel, RichText,
    ScrollArea, Sense, TextEdit, Ui, ViewportCommand, vec2,
};
use eframe::wgpu;
use oaif::gpu::{Gpu, GpuOptions};
use oaif::judge::{GivenLabel, Pick, Shown, View};

use crate::curve::curve;
use crate::frames::Frames;
use crate::learner::Learner;
use crate::shared::{Shared, Status};
use crate::{Arguments, Ending};

/// The target duration of a submit. A frame waits for at most two submits.
const SUBMIT_MS: f64 = 4.0;

/// An action requested by a key or a click.
enum Wish {
    Pick(Pick),
    Undo,
    /// Write a response to this prompt.
    Ask(String),
    Pause(bool),
    Save,
    /// Start again after an error.
    Begin,
}

/// The window.
pub struct App {
    arguments: Arguments,
    shared: Arc<Shared>,
    /// `None` after a device loss, until the user starts again.
    learner: Option<Learner>,
    device: wgpu::Device,
    queue: wgpu::Queue,
    ending: Arc<Mutex<Ending>>,
    /// The form of the pair that is shown, and since when.
    shown: Option<(u64, Instant)>,
    /// The text in the input field of the chat.
    typed: String,
    frames: Frames,
    /// The number of picks made by the self-test.
    picks: usize,
    /// Whether the program itself has closed the window.
    closing: bool,
}

impl App {
    pub fn new(arguments: Arguments, window: egui::Context, device: wgpu::Device, queue: wgpu::Queue) -> App {
        let shared = Arc::new(Shared::new(window));
        // Errors of an application's own device are reported to the application. Without these handlers, wgpu panics.
        let errors = shared.clone();
        device
            .on_uncaptured_error(Arc::new(move |error| errors.error(format!("a GPU call failed: {error}"))));
        let losses = shared.clone();
        device.set_device_lost_callback(move |reason, message| {
            losses.update(|status| status.lost = Some(format!("{reason:?}: {message}")));
        });
        App {
            arguments,
            shared,
            learner: None,
            device,
            queue,
            ending: Arc::default(),
            shown: None,
            typed: String::new(),
            frames: Frames::default(),
            picks: 0,
            closing: false,
        }
    }

    /// Sets where to store how the window ended.
    pub fn ending_in(self, ending: Arc<Mutex<Ending>>) -> App {
        App { ending, ..self }
    }

    /// Starts the training, unless the device of the previous window was lost; then the reason is shown.
    pub fn after_loss(mut self, lost: Option<String>) -> App {
        match lost {
            None => self.begin(),
            Some(why) => self.shared.error(format!(
                "the GPU was lost ({why}), and with it all training since the adapter was last saved. Start again, and \
                 update the driver if this happens again"
            )),
        }
        self
    }

    fn begin(&mut self) {
        // Ends the previous learner first.
        self.learner = None;
        self.shared.update(|status| *status = Status::default());
        let options = GpuOptions::default().submit_ms(SUBMIT_MS);
        match Gpu::from_device(self.device.clone(), self.queue.clone(), &options) {
            Ok(gpu) => {
                let (name, backend) = (&gpu.summary().name, &gpu.summary().backend);
                self.shared.update(|status| status.gpu = format!("{name}, {backend}"));
                self.learner = Some(Learner::start(self.arguments.clone(), gpu, self.shared.clone()));
            }
            Err(error) => self.shared.error(error),
        }
    }

    /// Closes the window for a reason other than the user's request.
    fn end(&mut self, ui: &Ui, ending: Ending) {
        self.closing = true;
        *self.ending.lock().unwrap() = ending;
        ui.send_viewport_cmd(ViewportCommand::Close);
    }

    /// Shows the model, the GPU, the progress, and the buttons.
    fn status(&self, ui: &mut Ui, status: &Status) -> Option<Wish> {
        let mut wish = None;
        let name = self.arguments.model.file_name().unwrap_or(self.arguments.model.as_os_str());
        ui.horizontal(|ui| {
            ui.heading(name.to_string_lossy());
            ui.label(RichText::new(&status.gpu).weak());
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if status.ended || self.learner.is_none() {
                    if ui.button("Start again").clicked() {
                        wish = Some(Wish::Begin);
                    }
                    return;
                }
                if ui.button("Save adapter").clicked() {
                    wish = Some(Wish::Save);
                }
                let pauses = self.learner.as_ref().is_some_and(Learner::pauses);
                if ui.button(if pauses { "Resume" } else { "Pause" }).clicked() {
                    wish = Some(Wish::Pause(!pauses));
                }
            });
        });
        ui.horizontal(|ui| {
            ui.label(format!("step {}", status.steps));
            ui.separator();
            ui.label(format!("memory {:.1} MiB", status.memory as f64 / f64::from(1 << 20)));
            ui.separator();
            ui.label(&status.phase);
        });
        if let Some(note) = &status.note {
            ui.label(RichText::new(note).weak());
        }
        for error in &status.errors {
            ui.add(Label::new(RichText::new(error).color(ui.visuals().error_fg_color)).wrap());
        }
        wish
    }

    /// Shows the chat and its input field.
    fn chat(&mut self, ui: &mut Ui, status: &Status) -> Option<Wish> {
        let mut wish = None;
        let busy = status.chat.last().is_some_and(|exchange| !exchange.done);
        let hint = match status.chat_ready {
            true => "Type the beginning of a story, and press Enter",
            false => "The model is not ready yet",
        };
        ui.with_layout(Layout::bottom_up(Align::Min), |ui| {
            ui.add_space(4.0);
            ui.add_enabled_ui(status.chat_ready && !busy, |ui| {
                let field =
                    TextEdit::singleline(&mut self.typed).hint_text(hint).desired_width(f32::INFINITY);
                let entered = ui.add(field).lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
                if entered && !self.typed.trim().is_empty() {
                    wish = Some(Wish::Ask(std::mem::take(&mut self.typed)));
                }
            });
            ui.add_space(4.0);
            let scroll = ScrollArea::vertical().id_salt("chat").stick_to_bottom(true).auto_shrink(false);
            ui.with_layout(Layout::top_down(Align::Min), |ui| {
                scroll.show(ui, |ui| {
                    for exchange in &status.chat {
                        ui.horizontal_wrapped(|ui| {
                            ui.spacing_mut().item_spacing.x = 0.0;
                            ui.label(RichText::new(&exchange.prompt).strong());
                            ui.label(&exchange.answer);
                            if !exchange.done {
                                ui.label(RichText::new(" …").weak());
                            }
                        });
                    }
                });
            });
        });
        wish
    }

    /// Shows the pair; returns the user's choice.
    fn pair(&self, ui: &mut Ui, view: &View) -> Option<Wish> {
        let Some(pair) = &view.pair else {
            ui.centered_and_justified(|ui| {
                ui.label(RichText::new("No pair is waiting.").weak());
            });
            return None;
        };
        let mut wish = None;
        ui.label(RichText::new("Which continuation is better?").weak());
        ui.add(Label::new(RichText::new(&pair.prompt).size(16.0)).wrap());
        ui.add_space(6.0);
        let height = (ui.available_height() - 44.0).max(60.0);
        ui.columns(2, |columns| {
            let answers = [(&pair.first, Pick::First, "1"), (&pair.second, Pick::Second, "2")];
            for (ui, (text, pick, key)) in columns.iter_mut().zip(answers) {
                if card(ui, text, key, height) {
                    wish = Some(Wish::Pick(pick));
                }
            }
        });
        ui.add_space(4.0);
        ui.horizontal(|ui| {
            let choices = [("1  left", Pick::First), ("2  right", Pick::Second), ("0  equal", Pick::Tie)];
            for (text, pick) in choices {
                if ui.button(text).clicked() {
                    wish = Some(Wish::Pick(pick));
                }
            }
            let undoable = view.last.as_ref().is_some_and(|last| last.undoable);
            if ui.add_enabled(undoable, Button::new("u  undo")).clicked() {
                wish = Some(Wish::Undo);
            }
            ui.label(
                RichText::new(format!("{} picks, {} waiting", view.counts.given, view.counts.open)).weak(),
            );
        });
        wish
    }

    fn grant(&mut self, wish: Wish, view: &View) {
        if let Wish::Begin = wish {
            return self.begin();
        }
        let Some(learner) = &self.learner else { return };
        let refused = match (wish, &view.pair, &view.last) {
            (Wish::Pick(choice), Some(pair), _) => learner.desk.label(self.label(pair, choice)).err(),
            (Wish::Undo, _, Some(last)) => learner.desk.undo(&last.id).err(),
            (Wish::Ask(prompt), ..) => return learner.ask(prompt),
            (Wish::Pause(pause), ..) => return learner.pause(pause),
            (Wish::Save, ..) => return learner.save(),
            _ => None,
        };
        if let Some(refusal) = refused {
            self.shared.update(|status| status.note = Some(refusal.to_string()));
        }
    }

    fn label(&self, pair: &Shown, choice: Pick) -> GivenLabel {
        let seconds = self.shown.map_or(0.0, |(_, since)| since.elapsed().as_secs_f64());
        let (id, form, shown_first) = (pair.id.clone(), pair.form, pair.shown_first);
        GivenLabel { id, form, shown_first, choice, comment: None, seconds }
    }

    /// The self-test: picks the shorter response, and closes the window at the end.
    fn demo(&mut self, ui: &Ui, view: &View, failed: bool) {
        let Some(picks) = self.arguments.demo.filter(|_| !self.closing) else { return };
        ui.request_repaint();
        if failed {
            self.shared.read().errors.iter().for_each(|error| eprintln!("{error}"));
            return self.end(ui, Ending::Failed);
        }
        let Some(pair) = &view.pair else { return };
        if self.picks == picks {
            println!("{}", std::mem::take(&mut self.frames).report());
            return self.end(ui, Ending::Closed);
        }
        let choice = match pair.first.len().cmp(&pair.second.len()) {
            std::cmp::Ordering::Less => Pick::First,
            std::cmp::Ordering::Greater => Pick::Second,
            std::cmp::Ordering::Equal => Pick::Tie,
        };
        self.grant(Wish::Pick(choice), view);
        self.picks += 1;
    }
}

impl eframe::App for App {
    fn logic(&mut self, context: &egui::Context, _: &mut eframe::Frame) {
        let hidden = context.input(|input| input.viewport().visible()) == Some(false);
        if let Some(learner) = &self.learner {
            learner.hide(hidden);
        }
    }

    fn ui(&mut self, ui: &mut Ui, _: &mut eframe::Frame) {
        let shared = self.shared.clone();
        let status = shared.read();
        self.frames.begin(&status.phase);
        if let Some(why) = status.lost.clone() {
            return self.end(ui, Ending::Lost(why));
        }
        let shown = self.shown.map(|(form, _)| form);
        let view = self.learner.as_ref().map_or_else(nothing, |learner| learner.desk.view(shown));
        let requested = Panel::top("status").show(ui, |ui| self.status(ui, &status)).inner;
        let chat = Panel::bottom("chat").resizable(true).default_size(170.0);
        let prompted = chat.show(ui, |ui| self.chat(ui, &status)).inner;
        Panel::right("curves").resizable(true).default_size(280.0).show(ui, |ui| {
            let points = &status.curve;
            let height = (ui.available_height() / 2.0 - 24.0).max(40.0);
            let losses = points.iter().map(|point| point.loss);
            curve(ui, "loss", height, Color32::from_rgb(220, 130, 60), losses);
            let margins = points.iter().filter_map(|point| point.margin);
            curve(ui, "margin", height, Color32::from_rgb(80, 150, 220), margins);
        });
        let failed = !status.errors.is_empty();
        // The code below may change `status`, so the lock must be released.
        drop(status);
        let form = view.pair.as_ref().map(|pair| pair.form);
        if form != shown {
            self.shown = form.map(|form| (form, Instant::now()));
        }
        let clicked = CentralPanel::default().show(ui, |ui| self.pair(ui, &view)).inner;
        if let Some(wish) = requested.or(prompted).or(clicked).or_else(|| key(ui)) {
            self.grant(wish, &view);
        }
        self.demo(ui, &view, failed);
    }
}

/// The view without a learner.
fn nothing() -> View {
    View::default()
}

/// A response that can be clicked.
fn card(ui: &mut Ui, text: &str, key: &str, height: f32) -> bool {
    let frame = Frame::group(ui.style()).fill(ui.visuals().faint_bg_color).inner_margin(10.0);
    let response = frame
        .show(ui, |ui| {
            // Selectable text would take the clicks.
            ui.style_mut().interaction.selectable_labels = false;
            ui.set_min_size(vec2(ui.available_width(), height - 22.0));
            // The layout of a column would justify the text.
            ui.with_layout(Layout::top_down(Align::Min), |ui| {
                ui.label(RichText::new(key).weak());
                ui.add(Label::new(RichText::new(text.trim()).size(15.0)).wrap());
            });
        })
        .response
        .interact(Sense::click())
        .on_hover_cursor(egui::CursorIcon::PointingHand);
    if response.hovered() {
        let stroke = ui.visuals().widgets.hovered.fg_stroke;
        ui.painter().rect_stroke(response.rect, 4.0, stroke, egui::StrokeKind::Inside);
    }
    response.clicked()
}

/// The action of a pressed key, unless the chat has the focus. A key that is held down counts once.
fn key(ui: &Ui) -> Option<Wish> {
    if ui.ctx().egui_wants_keyboard_input() {
        return None;
    }
    let wish = |event: &Event| match event {
        Event::Key { key, pressed: true, repeat: false, modifiers, .. } if modifiers.is_none() => match key {
            Key::Num1 => Some(Wish::Pick(Pick::First)),
            Key::Num2 => Some(Wish::Pick(Pick::Second)),
            Key::Num0 => Some(Wish::Pick(Pick::Tie)),
            Key::U => Some(Wish::Undo),
            _ => None,
        },
        _ => None,
    };
    ui.input(|input| input.events.iter().find_map(wish))
}
