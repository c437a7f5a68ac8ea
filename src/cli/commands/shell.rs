//! `oaif completions` and `oaif man`: what shells and `man` read.

use std::path::Path;

use clap_complete::Shell;

use crate::cli::{command, print, print_part};
use crate::error::{Error, Result};

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
    write(&dir.join("oaif.1"), all.clone())?;
    for sub in all.get_subcommands() {
        let name = format!("oaif-{}", sub.get_name());
        write(&dir.join(format!("{name}.1")), sub.clone().display_name(name))?;
    }
    Ok(())
}

fn write(path: &Path, command: clap::Command) -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Error::io("write", path))?;
    std::fs::write(path, page).map_err(Error::io("write", path))?;
    print(path.display())
}
