//! `oaif completions` and `oaif man`: what shells and `man` read.

use std::path::{Path, PathBuf};

use clap_complete::Shell;

use crate::cli::{command, print, print_part};
use crate::error::{Error, Result};
use crate::files;

/// Prints the script that completes commands and flags in `shell`.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "oaif", &mut script);
    print_part(&String::from_utf8_lossy(&script))
}

/// Writes `oaif.1` and a page for each command into the folder `dir`, and prints their paths.
pub fn man(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let mut all = command().disable_help_subcommand(true);
    all.build();
    let mut written = vec![write(dir.join("oaif.1"), all.clone())?];
    for sub in all.get_subcommands() {
        let name = format!("oaif-{}", sub.get_name());
        written.push(write(dir.join(format!("{name}.1")), sub.clone().display_name(name))?);
    }
    // The paths come last: a reader that closes the pipe does not leave pages out.
    written.iter().try_for_each(|path| print(path.display()))
}

fn write(path: PathBuf, command: clap::Command) -> Result<PathBuf> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Error::io("write", &path))?;
    files::write_atomic(&path, &page)?;
    Ok(path)
}
