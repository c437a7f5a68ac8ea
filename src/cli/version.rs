//! The version of the program.

/// The commit that was built, with a + if files were changed; `None` if it is not known.
pub(super) const COMMIT: Option<&str> = match env!("OAIF_COMMIT").as_bytes() {
    b"unknown" => None,
    _ => Some(env!("OAIF_COMMIT")),
};

/// The output of `oaif --version`: the version, the commit, the features and the target, one per line.
pub(super) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("OAIF_COMMIT"),
    "\nfeatures: ",
    env!("OAIF_FEATURES"),
    "\ntarget: ",
    env!("OAIF_TARGET"),
);
