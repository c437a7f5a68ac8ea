//! Writes the tables of the drivers' statistics, and lists broken bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::bounds::{self, broken};
use crate::kernel_file::KernelFile;
use crate::main_loop::MainLoop;
use crate::stats::{Compiled, DEVICE, Device, KERNELS, Outcome, Quantity, read};

/// The results in a device's folder.
#[derive(Default)]
struct Folder {
    /// The folder's name.
    name: String,
    device: Device,
    kernels: Vec<Compiled>,
    /// The reason why there is no result for some kernels.
    incomplete: Option<String>,
}

const COLUMNS: [(&str, Quantity); 8] = [
    ("lanes", Quantity::SubgroupLanes),
    ("registers", Quantity::Registers),
    ("spills", Quantity::Spills),
    ("scratch B", Quantity::ScratchBytes),
    ("workgroup B", Quantity::WorkgroupBytes),
    ("occupancy", Quantity::Occupancy),
    ("instructions", Quantity::Instructions),
    ("code B", Quantity::CodeBytes),
];

/// Writes `stats.md` and prints the broken bounds, one per line. Returns whether there were none.
pub fn report(out: &Path, devices: &[&str]) -> Result<bool> {
    let folders: Vec<Folder> = devices.iter().map(|name| Folder::read(out, name)).collect::<Result<_>>()?;
    let broken = all_broken(&folders);
    let file = out.join("stats.md");
    fs::write(&file, markdown(&folders, &broken))?;
    broken.iter().for_each(|line| println!("{line}"));
    if let Some(summary) = summary(&folders) {
        println!("{summary}");
    }
    let kernels: usize = folders.iter().map(|folder| folder.kernels.len()).sum();
    let (devices, file) = (folders.len(), file.display());
    println!("{kernels} kernels on {devices} GPUs, {} break a bound: {file}", broken.len());
    Ok(broken.is_empty())
}

impl Folder {
    fn read(out: &Path, name: &str) -> Result<Folder> {
        let (dir, name) = (&out.join(name), name.to_owned());
        let written = KernelFile::read_all(dir)?;
        let device = read(dir, DEVICE)?.map(|text| serde_json::from_str(&text)).transpose()?;
        let lines = read(dir, KERNELS)?.unwrap_or_default();
        let kernels: Vec<Compiled> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let incomplete = match written.get(kernels.len()) {
            _ if written.is_empty() => Some("no kernel was written".to_owned()),
            Some((file, _)) => Some(format!(
                "the compiler ended at {file}, kernel {} of {}",
                kernels.len() + 1,
                written.len()
            )),
            None => None,
        };
        Ok(Folder { name, device: device.unwrap_or_default(), kernels, incomplete })
    }
}

/// Returns a line for each kernel that breaks a bound, and for each device with incomplete results.
fn all_broken(folders: &[Folder]) -> Vec<String> {
    let varying = varying(folders);
    let mut lines = Vec::new();
    for folder in folders {
        for compiled in &folder.kernels {
            let broken = broken(compiled);
            if !broken.is_empty() {
                let (device, kernel, broken) = (&folder.name, &compiled.kernel, broken.join(", "));
                let variant = match variant(compiled, &varying) {
                    none if none.is_empty() => none,
                    some => format!(" ({some})"),
                };
                lines.push(format!("{device}: {kernel}{variant}: {broken}"));
            }
        }
        lines.extend(folder.incomplete.iter().map(|why| format!("{}: {why}; see its log", folder.name)));
    }
    lines
}

/// Returns the kernels with broken bounds, each with the number of its compiled variants concerned.
fn summary(folders: &[Folder]) -> Option<String> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for compiled in folders.iter().flat_map(|folder| &folder.kernels) {
        let (bad, all) = counts.entry(&compiled.kernel).or_default();
        *bad += usize::from(!broken(compiled).is_empty());
        *all += 1;
    }
    let listed = counts.iter().filter(|(_, (bad, _))| *bad > 0);
    let listed: Vec<String> = listed.map(|(kernel, (bad, all))| format!("{kernel} {bad} of {all}")).collect();
    (!listed.is_empty()).then(|| format!("by kernel: {}", listed.join(", ")))
}

/// Returns for each kernel the constants in which its variants differ.
fn varying(folders: &[Folder]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut values: BTreeMap<(&str, &str), BTreeSet<Option<&str>>> = BTreeMap::new();
    let all = || folders.iter().flat_map(|folder| &folder.kernels);
    for compiled in all() {
        for (name, value) in &compiled.constants {
            values.entry((&compiled.kernel, name)).or_default().insert(Some(value));
        }
    }
    // A variant may lack a constant that others have.
    for compiled in all() {
        for ((kernel, name), values) in &mut values {
            if compiled.kernel == *kernel && !compiled.constants.iter().any(|(known, _)| known == name) {
                values.insert(None);
            }
        }
    }
    let mut varying: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for ((kernel, name), values) in values {
        if values.len() > 1 {
            varying.entry(kernel).or_default().insert(name);
        }
    }
    varying
}

/// Describes the difference between this variant of a kernel and the others.
fn variant(compiled: &Compiled, varying: &BTreeMap<&str, BTreeSet<&str>>) -> String {
    let Some(names) = varying.get(compiled.kernel.as_str()) else { return String::new() };
    let listed =
        compiled.constants.iter().filter(|(name, value)| names.contains(name.as_str()) && value != "0");
    listed.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" ")
}

fn markdown(folders: &[Folder], broken: &[String]) -> String {
    let varying = varying(folders);
    let mut out = String::from("# oaif's kernels, compiled by the shader compilers of GPUs\n\n");
    let (code, seconds) = (bounds::CODE_BYTES / 1024.0, bounds::COMPILE_MS / 1e3);
    let _ = writeln!(
        out,
        "Bounds: no spills, no scratch memory, at most {code:.0} KiB of code, at most {seconds:.0} s of CPU time to \
         compile. A variant is named by the constants in which it differs from other variants of its kernel, unless they \
         are 0. Occupancy has each driver's unit: subgroups per SIMD (AMD), warps per SM (NVIDIA), threads per core \
         (Apple), SIMD width (Intel).\n\n## Broken bounds\n"
    );
    if broken.is_empty() {
        out.push_str("None.\n");
    }
    if let Some(summary) = summary(folders) {
        out.push_str(&format!("{summary}\n\n"));
    }
    broken.iter().for_each(|line| out.push_str(&format!("- {line}\n")));
    for folder in folders {
        let Device { name, driver, subgroups: (fewest, most) } = &folder.device;
        let _ = writeln!(out, "\n## {}\n\n{name}, {driver}, subgroups of {fewest} to {most}.\n", folder.name);
        table(&mut out, folder, &varying);
        loop_table(&mut out, folder, &varying);
    }
    out
}

fn table(out: &mut String, folder: &Folder, varying: &BTreeMap<&str, BTreeSet<&str>>) {
    let heads: Vec<&str> = COLUMNS.iter().map(|(head, _)| *head).collect();
    let _ = writeln!(out, "| kernel | variant | {} | ms to compile | launched by |", heads.join(" | "));
    let _ = writeln!(out, "|---|---|{}---:|---|", "---:|".repeat(heads.len()));
    for compiled in &folder.kernels {
        let cells = match &compiled.outcome {
            Outcome::Failed(_) => "failed |".repeat(heads.len() + 1),
            Outcome::Compiled { ms, statistics, .. } => {
                let cell = |(_, quantity): &(&str, Quantity)| match quantity.of(statistics) {
                    // Bold if it should be 0.
                    Some(n) if n > 0.0 && matches!(quantity, Quantity::Spills | Quantity::ScratchBytes) => {
                        format!(" **{n}** |")
                    }
                    Some(n) => format!(" {n} |"),
                    None => " |".into(),
                };
                COLUMNS.iter().map(cell).collect::<String>() + &format!(" {ms:.0} |")
            }
        };
        let (kernel, variant, steps) = (&compiled.kernel, variant(compiled, varying), steps(&compiled.steps));
        let _ = writeln!(out, "| {kernel} | {variant} |{cells} {steps} |");
    }
}

/// Groups steps, each prefixed by a shape, by shapes: "a, b: f32 training, f32 scoring".
fn steps(steps: &[String]) -> String {
    let mut shapes_of: Vec<(&str, Vec<&str>)> = Vec::new();
    for (shape, step) in steps.iter().filter_map(|step| step.split_once(' ')) {
        match shapes_of.iter_mut().find(|(known, _)| *known == step) {
            Some((_, shapes)) => shapes.push(shape),
            None => shapes_of.push((step, vec![shape])),
        }
    }
    let mut by_shapes: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for (step, shapes) in shapes_of {
        match by_shapes.iter_mut().find(|(known, _)| *known == shapes) {
            Some((_, steps)) => steps.push(step),
            None => by_shapes.push((shapes, vec![step])),
        }
    }
    let listed =
        by_shapes.iter().map(|(shapes, steps)| format!("{}: {}", shapes.join(", "), steps.join(", ")));
    listed.collect::<Vec<_>>().join("; ")
}

fn loop_table(out: &mut String, folder: &Folder, varying: &BTreeMap<&str, BTreeSet<&str>>) {
    let of = |compiled: &Compiled| match &compiled.outcome {
        Outcome::Compiled { main_loop, .. } => main_loop.clone(),
        Outcome::Failed(_) => None,
    };
    let loops: Vec<(&Compiled, MainLoop)> = folder.kernels.iter().filter_map(|c| Some((c, of(c)?))).collect();
    if loops.is_empty() {
        return;
    }
    out.push_str(
        "\nMain loops: the loop with most multiply-adds, without inner loops. Share: the fraction of the vector instructions \
         that are multiply-adds.\n\n| kernel | variant | multiply-adds | share | other vector | of them integer or \
         converting | vector loads | scalar loads | workgroup memory | scratch | waits |\n|---|---|---:|---:|---:|---:|\
         ---:|---:|---:|---:|---:|\n",
    );
    for (compiled, l) in loops {
        let (kernel, variant, percent) = (&compiled.kernel, variant(compiled, varying), 100.0 * l.share());
        let other = l.vector - l.multiply_add_instructions;
        let MainLoop {
            multiply_adds, integer, vector_loads, scalar_loads, workgroup, scratch, waits, ..
        } = l;
        let _ = writeln!(
            out,
            "| {kernel} | {variant} | {multiply_adds} | {percent:.0} % | {other} | {integer} | {vector_loads} | \
             {scalar_loads} | {workgroup} | {scratch} | {waits} |"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::tests::compiled;

    fn of_group(lanes: &str, spills: f64) -> Compiled {
        let statistics = [("VGPRs", 96.0), ("Spilled VGPRs", spills), ("Code size", 800.0)];
        let constants = [("GROUP", lanes), ("WIDE", "0"), ("SAME", "7")];
        let constants = constants.map(|(name, value)| (name.into(), value.into())).into();
        Compiled { constants, ..compiled(12.0, &statistics) }
    }

    fn folder(name: &str, kernels: Vec<Compiled>) -> Folder {
        Folder { name: name.into(), kernels, ..Folder::default() }
    }

    #[test]
    fn a_variant_is_named_by_the_constants_that_differ() {
        let folders =
            [folder("rdna3", vec![of_group("32", 0.0)]), folder("apple", vec![of_group("64", 3.0)])];
        assert_eq!(all_broken(&folders), ["apple: adamw (GROUP 64): 3 spills"]);
        assert_eq!(all_broken(&folders[1..]), ["apple: adamw: 3 spills"]);
        assert_eq!(summary(&folders).unwrap(), "by kernel: adamw 1 of 2");
        let text = markdown(&folders, &all_broken(&folders));
        assert!(
            text.contains("| adamw | GROUP 32 | | 96 | 0 | | | | | 800 | 12 | smollm2-135m: f32 optimiser |"),
            "{text}"
        );
        assert!(text.contains("- apple: adamw (GROUP 64): 3 spills\n"), "{text}");
    }

    #[test]
    fn steps_are_grouped_by_shapes() {
        let all = ["a f32 training", "b f32 training", "b f32 scoring", "a f32 optimiser", "b f32 optimiser"]
            .map(str::to_owned);
        assert_eq!(steps(&all), "a, b: f32 training, f32 optimiser; b: f32 scoring");
    }

    #[test]
    fn a_compiler_that_crashed_is_a_broken_bound_and_a_complete_result_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("rdna3");
        fs::create_dir(&device).unwrap();
        assert!(!report(dir.path(), &["rdna3"]).unwrap(), "no kernel was written");
        for file in ["000-adamw", "001-sample"] {
            let [kernel, source] = ["adamw", "fn main() {}"].map(str::to_owned);
            let kernel = KernelFile { kernel, constants: vec![], steps: vec![], source };
            fs::write(device.join(format!("{file}.wgsl")), kernel.to_text()).unwrap();
        }
        let line = serde_json::to_string(&of_group("32", 0.0)).unwrap() + "\n";
        fs::write(device.join(KERNELS), &line).unwrap();
        let read = Folder::read(dir.path(), "rdna3").unwrap();
        assert_eq!(read.incomplete.as_deref(), Some("the compiler ended at 001-sample, kernel 2 of 2"));
        fs::write(device.join(KERNELS), line.repeat(2)).unwrap();
        assert!(report(dir.path(), &["rdna3"]).unwrap());
        assert!(fs::read_to_string(dir.path().join("stats.md")).unwrap().contains("None."));
    }
}
