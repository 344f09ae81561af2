//! The operator's name, colours and links, prepared once at start.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::assets;
use super::view::{self, Chrome};
use crate::config::{Brand, Config};
use crate::crypto::digest::{base64url, sha256};

/// Larger logos would make every page slow.
const MAX_LOGO_BYTES: usize = 256 * 1024;

pub struct Branding {
    brand: Brand,
    logo_uri: Option<String>,
    icon: String,
    /// Path of the stylesheet, with a hash of its content.
    pub stylesheet_name: String,
    stylesheet_uri: String,
    pub stylesheet: String,
}

impl Branding {
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let brand = config.brand.clone();
        let logo_uri = brand.logo_file.as_ref().map(|path| {
            let bytes = std::fs::read(path).with_context(|| format!("brand.logo_file {}", path.display()))?;
            data_uri(&bytes).with_context(|| format!("brand.logo_file {}", path.display()))
        });
        let stylesheet = view::stylesheet(&brand.accent);
        let stylesheet_name = format!("keyward.{}.css", base64url(&sha256(stylesheet.as_bytes())[..9]));
        Ok(Self {
            logo_uri: logo_uri.transpose()?,
            icon: view::icon(&brand.name, &brand.accent),
            stylesheet_uri: format!("{}{}{stylesheet_name}", config.issuer.path(), assets::PREFIX),
            stylesheet_name,
            stylesheet,
            brand,
        })
    }

    pub fn chrome(&self) -> Chrome<'_> {
        Chrome {
            brand: &self.brand.name,
            logo_uri: self.logo_uri.as_deref(),
            icon: &self.icon,
            stylesheet: &self.stylesheet_uri,
            lang: "en",
            dir: "ltr",
            home_uri: None,
            privacy_uri: self.brand.privacy_uri.as_deref(),
            terms_uri: self.brand.terms_uri.as_deref(),
            help_uri: self.brand.help_uri.as_deref(),
        }
    }
}

/// Pictures are recognised by their first bytes: a file's name may say anything.
fn data_uri(bytes: &[u8]) -> anyhow::Result<String> {
    anyhow::ensure!(bytes.len() <= MAX_LOGO_BYTES, "is larger than {MAX_LOGO_BYTES} bytes");
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let media_type = match bytes {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ if text.contains("<svg") => "image/svg+xml",
        _ => anyhow::bail!("is neither SVG nor PNG, JPEG or WebP"),
    };
    Ok(format!("data:{media_type};base64,{}", STANDARD.encode(bytes)))
}
