//! Limits on the resources of a template. A template comes with a model and may be broken or hostile.
//!
//! Fuel limits its steps and memory, a separate stack its recursion, and a timeout its time. What fuel does not count
//! is limited by [`super::source`] before the template is parsed.

use std::collections::HashSet;
use std::sync::Arc;
use web_time::Duration;

use minijinja::value::ObjectRepr;
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::source;

/// One instruction costs 1, and so do 64 bytes of memory, which allows at most 256 MiB.
const FUEL: u64 = 4 << 20;
/// The stack size of the thread that runs a template. Only used pages take memory.
const STACK: usize = 128 << 20;
/// A conversation takes about a millisecond. The timeout is reached only on an overloaded machine or by a runaway
/// template.
const TIME: Duration = Duration::from_secs(10);
/// minijinja's limit of call depth; a macro takes 4.
const RECURSION: usize = 200;
/// The cost of visiting one item of a list or a map.
const ITEM: u64 = 4;
/// The deepest nesting of lists and maps that a template builds.
const DEPTH: usize = 64;

/// Creates an environment with these limits.
pub(crate) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.add_filter(source::HELD, held);
    environment
}

/// Adds the template `source` as `name`. The error says why it cannot be parsed.
pub(crate) fn add_template(
    environment: Environment<'static>,
    name: &'static str,
    source: &str,
) -> Result<Environment<'static>, String> {
    let source = source::prepared(source)?;
    on_own_stack(move || {
        let mut environment = environment;
        environment.add_template_owned(name, source).map_err(described)?;
        Ok(environment)
    })
}

/// Renders the template `name`. The error is the template's exception, or names the limit that was exceeded.
pub(crate) fn render(
    environment: &Arc<Environment<'static>>,
    name: &'static str,
    context: Value,
) -> Result<String, String> {
    let environment = environment.clone();
    on_own_stack(move || environment.get_template(name).and_then(|t| t.render(context)).map_err(described))
}

/// Returns the variables that the template `name` uses and does not set.
pub(crate) fn variables(
    environment: &Arc<Environment<'static>>,
    name: &'static str,
) -> Result<HashSet<String>, String> {
    let environment = environment.clone();
    on_own_stack(move || {
        environment.get_template(name).map(|t| t.undeclared_variables(false)).map_err(described)
    })
}

/// Runs `work` on a thread with a large stack. After a timeout the thread is abandoned, since a thread cannot be
/// stopped.
#[cfg(not(target_arch = "wasm32"))]
fn on_own_stack<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    use std::sync::mpsc;
    use std::thread;

    let (sender, receiver) = mpsc::sync_channel(1);
    let run = move || {
        // After the timeout there is no receiver.
        let _ = sender.send(work());
    };
    thread::Builder::new()
        .name("template".to_owned())
        .stack_size(STACK)
        .spawn(run)
        .map_err(|e| format!("cannot start a thread for it: {e}"))?;
    receiver.recv_timeout(TIME).unwrap_or_else(|e| {
        Err(match e {
            mpsc::RecvTimeoutError::Timeout => format!("it took longer than {} seconds", TIME.as_secs()),
            mpsc::RecvTimeoutError::Disconnected => "the template engine failed".to_owned(),
        })
    })
}

/// In a browser there is no other thread; only fuel limits the template.
#[cfg(target_arch = "wasm32")]
fn on_own_stack<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    work()
}

fn described(error: Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps or too much memory: it may loop forever".to_owned(),
        _ => error.to_string(),
    }
}

/// Checks the value of `{% set … = … %}`: its nesting is limited and it has no namespaces, so that no value contains
/// itself.
fn held(state: &mut State, value: Value, attribute: bool) -> Result<Value, Error> {
    // minijinja concatenates lists lazily, so a small value may stand for any number of items.
    let sum = value.as_object().is_some_and(|object| object.type_name().ends_with("::MergeSeq"));
    let value = if sum {
        let items = value.try_iter()?.map(|item| state.consume_fuel(ITEM).map(|()| item));
        Value::from(items.collect::<Result<Vec<Value>, Error>>()?)
    } else {
        value
    };
    let mut items = 0;
    check(&value, DEPTH, attribute, &mut items)?;
    state.consume_fuel(items * ITEM)?;
    Ok(value)
}

fn check(value: &Value, depth: usize, attribute: bool, items: &mut u64) -> Result<(), Error> {
    *items += 1;
    if *items * ITEM > FUEL {
        return Err(ErrorKind::OutOfFuel.into());
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    if attribute && object.type_name().ends_with("::Namespace") {
        let why = "a namespace cannot hold a namespace";
        return Err(Error::new(ErrorKind::InvalidOperation, why));
    }
    if depth == 0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "lists or maps are nested too deeply"));
    }
    match object.repr() {
        ObjectRepr::Map => {
            for (_, item) in object.try_iter_pairs().into_iter().flatten() {
                check(&item, depth - 1, attribute, items)?;
            }
        }
        ObjectRepr::Seq => {
            for item in object.try_iter().into_iter().flatten() {
                check(&item, depth - 1, attribute, items)?;
            }
        }
        _ => {}
    }
    Ok(())
}
