//! What `oaif --version` prints: the version, the commit that was built, and the features.

/// The version, the commit where it is known, and the features, a line each.
pub(super) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("OAIF_COMMIT"),
    "\nfeatures: ",
    env!("OAIF_FEATURES"),
    "\ntarget: ",
    env!("OAIF_TARGET"),
);
