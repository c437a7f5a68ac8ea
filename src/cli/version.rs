//! The output of `oaif --version`.

/// The version, the commit that was built (if known), the features and the target, one per line.
pub(super) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("OAIF_COMMIT"),
    "\nfeatures: ",
    env!("OAIF_FEATURES"),
    "\ntarget: ",
    env!("OAIF_TARGET"),
);
