//! Where a plugin's files are: a folder, a zip, an address, or this binary.

use std::path::Path;

use ring::digest::{SHA256, digest};

use super::failure::Failure;
use crate::executor::http::download::download;
use crate::plugin::bundle::{self, Bundle};
use crate::plugin::problem::Problems;
use crate::plugin::{Plugin, bundled};

#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// A folder, a zip, its address (https://…), or the name of a bundled plugin.
    plugin: String,
    /// SHA-256 of the zip: another one is refused.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal)]
    sha256: Option<String>,
}

impl Source {
    pub(super) async fn read(&self) -> Result<Plugin, Failure> {
        let plugin = self.plugin.as_str();
        if plugin.contains("://") {
            let roots = rustls_native_certs::load_native_certs().certs;
            let zip = download(plugin, usize::try_from(bundle::LARGEST).unwrap_or(usize::MAX), &roots).await;
            let zip = zip.map_err(|problem| Failure::new(format!("{}: {problem}", self.shown())))?;
            self.compare(&zip)?;
            return checked(Bundle::of_zip(&self.shown(), &zip));
        }
        if self.sha256.is_some() {
            let zip = bundle::read_zip(Path::new(plugin))
                .map_err(|error| Failure::new(format!("{plugin}: {error}; --sha256 is the sum of a zip")))?;
            self.compare(&zip)?;
            let name = Path::new(plugin).file_name().unwrap_or_default().to_string_lossy();
            return checked(Bundle::of_zip(&format!("zip {name}"), &zip));
        }
        read(plugin)
    }

    /// The address without what may be a key: credentials and the query.
    fn shown(&self) -> String {
        match url::Url::parse(&self.plugin) {
            Ok(url) if url.has_host() => format!("{}{}", url.origin().ascii_serialization(), url.path()),
            _ => self.plugin.clone(),
        }
    }

    fn compare(&self, zip: &[u8]) -> Result<(), Failure> {
        let found: String = digest(&SHA256, zip).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        match &self.sha256 {
            Some(wanted) if *wanted != found => Err(Failure::new(format!(
                "{}: its SHA-256 is {found}, not {wanted}; nothing was installed",
                self.shown()
            ))),
            _ => Ok(()),
        }
    }
}

/// The plugin at a path, else the bundled one of that name.
pub(super) fn read(plugin: &str) -> Result<Plugin, Failure> {
    checked(match bundled::find(plugin) {
        Some(bundle) if !Path::new(plugin).exists() => bundle,
        _ => Bundle::open(Path::new(plugin)),
    })
}

fn checked(bundle: Result<Bundle, Vec<crate::plugin::problem::Problem>>) -> Result<Plugin, Failure> {
    Ok(bundle.map_err(Problems).and_then(Plugin::read)?)
}

fn hexadecimal(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err("a SHA-256 is 64 hexadecimal digits".to_owned())
}
