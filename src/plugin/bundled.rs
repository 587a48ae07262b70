//! The plugins that come with this binary: every folder of `plugins/`. They pass the same door as anybody's.

use include_dir::{Dir, include_dir};

use super::bundle::Bundle;
use super::problem::Problem;

static PLUGINS: Dir = include_dir!("$CARGO_MANIFEST_DIR/plugins");

/// Their names, in order.
pub fn names() -> Vec<String> {
    PLUGINS.dirs().map(|dir| dir.path().to_string_lossy().into_owned()).collect()
}

/// The files of one.
///
/// # Errors
/// What is wrong with its files.
pub fn find(name: &str) -> Option<Result<Bundle, Vec<Problem>>> {
    PLUGINS.get_dir(name).map(Bundle::of_dir)
}

#[cfg(test)]
mod tests {
    use crate::plugin::Plugin;

    #[test]
    fn every_bundled_plugin_is_well_formed_and_has_its_folder_s_name() {
        for name in super::names() {
            let bundle = super::find(&name).expect("it is listed").expect("its files fit");
            let plugin = Plugin::read(bundle).expect("its manifest fits");
            assert_eq!(plugin.manifest.name, name);
        }
    }
}
