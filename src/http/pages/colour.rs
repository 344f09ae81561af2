//! The colours of the pages: two themes and an operator's accent, whatever accent that is.
//!
//! An operator picks one `#rrggbb`. It may be yellow on white or black on black, so nothing that has to be read or
//! found uses it as it comes: what stands on it (`--on-accent`) is the better of black and white, and what it writes
//! or outlines (`--accent-text`, `--accent-edge`) moves in lightness only, in OKLCH so that the hue stays the
//! operator's, until WCAG 2.2 §1.4.3 (4.5:1, text) and §1.4.11 (3:1, controls) hold on every surface of the theme.
//!
//! The palette lives here and not in `keyward.css`, so that the tests below check the values that are served. Both
//! themes are plain custom properties under `prefers-color-scheme`: a browser needs neither `light-dark()` nor
//! `color-mix()`. What is done with the colours is `templates/pages/keyward.css`.

use std::fmt;
use std::fmt::Write as _;

/// What an operator who configured no accent gets.
pub const DEFAULT_ACCENT: &str = "#3d5afe";

/// WCAG 2.2 §1.4.3 and §1.4.11, with a hair more, because browsers round.
const TEXT: f64 = 4.6;
const CONTROL: f64 = 3.1;

/// One opaque sRGB colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl fmt::Display for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

impl Rgb {
    const BLACK: Self = Self(0, 0, 0);
    const WHITE: Self = Self(255, 255, 255);

    /// `#rrggbb`, in either case. Shorthands and names are refused: a config should say what it means.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u32::from_str_radix(digits, 16).ok().map(Self::hex)
    }

    const fn hex(value: u32) -> Self {
        Self((value >> 16) as u8, (value >> 8) as u8, value as u8)
    }

    fn linear(self) -> [f64; 3] {
        [self.0, self.1, self.2].map(|channel| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        })
    }

    fn from_linear(linear: [f64; 3]) -> Self {
        let [r, g, b] = linear.map(|c| {
            let c = c.clamp(0.0, 1.0);
            let encoded = if c <= 0.003_130_8 { c * 12.92 } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
            // In range by the clamp above; `as` saturates anyway.
            (encoded * 255.0).round() as u8
        });
        Self(r, g, b)
    }

    /// Relative luminance (WCAG 2.2).
    fn luminance(self) -> f64 {
        let [r, g, b] = self.linear();
        0.2126 * r + 0.7152 * g + 0.0722 * b
    }

    /// Contrast ratio (WCAG 2.2): 1 to 21, the same both ways.
    pub fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    fn worst_contrast(self, surfaces: &[Self]) -> f64 {
        surfaces.iter().map(|surface| self.contrast(*surface)).fold(f64::INFINITY, f64::min)
    }

    /// `share` of `self` over `ground`, mixed as a browser paints a translucent colour.
    fn over(self, ground: Self, share: f64) -> Self {
        let mix = |a: u8, b: u8| (f64::from(a) * share + f64::from(b) * (1.0 - share)).round() as u8;
        Self(mix(self.0, ground.0), mix(self.1, ground.1), mix(self.2, ground.2))
    }

    /// Black or white, whichever reads better on `self`. One of them always reaches 4.58:1.
    pub fn foreground(self) -> Self {
        if self.contrast(Self::WHITE) >= self.contrast(Self::BLACK) { Self::WHITE } else { Self::BLACK }
    }
}

/// Lightness, chroma and hue (radians): the OKLCH form of a colour.
#[derive(Clone, Copy)]
struct Oklch {
    l: f64,
    c: f64,
    h: f64,
}

impl Oklch {
    fn of(colour: Rgb) -> Self {
        let [r, g, b] = colour.linear();
        let l = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
        let m = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
        let s = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
        let a = 1.977_998_495_1 * l - 2.428_592_205_0 * m + 0.450_593_709_9 * s;
        let b = 0.025_904_037_1 * l + 0.782_771_766_2 * m - 0.808_675_766_0 * s;
        let lightness = 0.210_454_255_3 * l + 0.793_617_785_0 * m - 0.004_072_046_8 * s;
        Self { l: lightness, c: a.hypot(b), h: b.atan2(a) }
    }

    fn linear(self) -> [f64; 3] {
        let (a, b) = (self.c * self.h.cos(), self.c * self.h.sin());
        let l = (self.l + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
        let m = (self.l - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
        let s = (self.l - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
        [
            4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
            -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
            -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701_0 * s,
        ]
    }

    /// The colour of this lightness and hue with the most of this chroma that a screen can show.
    fn to_rgb(self) -> Rgb {
        let fits = |c: f64| Self { c, ..self }.linear().iter().all(|v| (-0.000_5..=1.000_5).contains(v));
        if fits(self.c) {
            return Rgb::from_linear(self.linear());
        }
        let (mut low, mut high) = (0.0, self.c);
        for _ in 0..24 {
            let middle = (low + high) / 2.0;
            if fits(middle) { low = middle } else { high = middle }
        }
        Rgb::from_linear(Self { c: low, ..self }.linear())
    }
}

/// One theme: what is there before an accent comes.
struct Theme {
    /// The page, the card on it, a tinted panel on the card, and the inside of a field.
    ground: Rgb,
    card: Rgb,
    panel: Rgb,
    field: Rgb,
    /// Text, and quieter text.
    ink: Rgb,
    soft: Rgb,
    /// Decoration only, and the outline of a control.
    line: Rgb,
    edge: Rgb,
    bad: Rgb,
    bad_ground: Rgb,
    bad_line: Rgb,
    good: Rgb,
    /// Where an accent moves to be seen: away from the surfaces.
    towards: f64,
    /// How much accent tints an avatar, and the light above the card.
    tint: f64,
    wash: f64,
    shadow: &'static str,
}

const LIGHT: Theme = Theme {
    ground: Rgb::hex(0xf5f6f8),
    card: Rgb::WHITE,
    panel: Rgb::hex(0xf5f6f9),
    field: Rgb::WHITE,
    ink: Rgb::hex(0x12151c),
    soft: Rgb::hex(0x565d6b),
    line: Rgb::hex(0xe2e5eb),
    edge: Rgb::hex(0x8b92a0),
    bad: Rgb::hex(0xb42318),
    bad_ground: Rgb::hex(0xfef3f2),
    bad_line: Rgb::hex(0xf4c7c3),
    good: Rgb::hex(0x067647),
    towards: 0.0,
    tint: 0.14,
    wash: 0.10,
    shadow: "0 1px 2px rgb(16 24 40 / .05), 0 20px 44px -20px rgb(16 24 40 / .18)",
};

const DARK: Theme = Theme {
    ground: Rgb::hex(0x0c0e12),
    card: Rgb::hex(0x161920),
    panel: Rgb::hex(0x1e222b),
    field: Rgb::hex(0x0f1217),
    ink: Rgb::hex(0xeef0f4),
    soft: Rgb::hex(0xa5acba),
    line: Rgb::hex(0x2b303b),
    edge: Rgb::hex(0x6d7483),
    bad: Rgb::hex(0xff9a90),
    bad_ground: Rgb::hex(0x2b1716),
    bad_line: Rgb::hex(0x5e2c28),
    good: Rgb::hex(0x6ce9a6),
    towards: 1.0,
    tint: 0.26,
    wash: 0.16,
    shadow: "0 1px 2px rgb(0 0 0 / .4), 0 24px 48px -24px rgb(0 0 0 / .7)",
};

/// An accent as one theme wears it.
struct Worn {
    accent: Rgb,
    on_accent: Rgb,
    hover: Rgb,
    text: Rgb,
    edge: Rgb,
    tint: Rgb,
    wash: Rgb,
}

impl Theme {
    const fn surfaces(&self) -> [Rgb; 4] {
        [self.ground, self.card, self.panel, self.field]
    }

    fn wear(&self, accent: Rgb) -> Worn {
        let on_accent = accent.foreground();
        Worn {
            accent,
            on_accent,
            hover: hover(accent, on_accent),
            text: self.reach(accent, TEXT),
            edge: self.reach(accent, CONTROL),
            tint: accent.over(self.card, self.tint),
            wash: accent.over(self.ground, self.wash),
        }
    }

    /// `accent`, or the nearest lightness of it that keeps `ratio` on every surface. Black (in the light theme) and
    /// white (in the dark one) always do, so the search cannot fail.
    fn reach(&self, accent: Rgb, ratio: f64) -> Rgb {
        let surfaces = self.surfaces();
        if accent.worst_contrast(&surfaces) >= ratio {
            return accent;
        }
        let start = Oklch::of(accent);
        let at = |share: f64| Oklch { l: start.l + (self.towards - start.l) * share, ..start }.to_rgb();
        // Away from the surfaces contrast falls before it rises only for an accent that starts beyond them (black in
        // the dark theme), and there every share that is too small fails: the upper end stays the one that holds.
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..24 {
            let middle = (low + high) / 2.0;
            if at(middle).worst_contrast(&surfaces) >= ratio { high = middle } else { low = middle }
        }
        at(high)
    }

    fn declare(&self, accent: Rgb, css: &mut String) {
        let worn = self.wear(accent);
        let colours = [
            ("ground", self.ground),
            ("card", self.card),
            ("panel", self.panel),
            ("field", self.field),
            ("ink", self.ink),
            ("soft", self.soft),
            ("line", self.line),
            ("edge", self.edge),
            ("bad", self.bad),
            ("bad-ground", self.bad_ground),
            ("bad-line", self.bad_line),
            ("good", self.good),
            ("accent", worn.accent),
            ("on-accent", worn.on_accent),
            ("accent-hover", worn.hover),
            ("accent-text", worn.text),
            ("accent-edge", worn.edge),
            ("accent-tint", worn.tint),
            ("wash", worn.wash),
        ];
        for (name, colour) in colours {
            // Writing to a String cannot fail.
            let _ = writeln!(css, "  --{name}: {colour};");
        }
        let _ = writeln!(css, "  --shadow: {};", self.shadow);
    }
}

/// The primary button under the pointer: a step away from its text, a longer one where that shows too little, or,
/// where the accent is already at that end, a step towards the text, which can afford it there.
fn hover(accent: Rgb, on_accent: Rgb) -> Rgb {
    let away = if on_accent == Rgb::WHITE { Rgb::BLACK } else { Rgb::WHITE };
    [away.over(accent, 0.14), away.over(accent, 0.28)]
        .into_iter()
        .find(|stepped| stepped.contrast(accent) >= 1.08)
        .unwrap_or_else(|| on_accent.over(accent, 0.14))
}

/// The custom properties of both themes for `accent`; an accent that is no `#rrggbb` counts as [`DEFAULT_ACCENT`].
/// `Config` refuses such an accent at start with [`Rgb::parse`]; a page must never be the one to fail on it.
pub fn custom_properties(accent: &str) -> String {
    let accent = Rgb::parse(accent).or_else(|| Rgb::parse(DEFAULT_ACCENT)).unwrap_or(Rgb::BLACK);
    let mut css = String::with_capacity(1200);
    css.push_str(":root {\n");
    LIGHT.declare(accent, &mut css);
    css.push_str("}\n@media (prefers-color-scheme: dark) {\n:root {\n");
    DARK.declare(accent, &mut css);
    css.push_str("}\n}\n");
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The corners, the greys, and a walk through the cube.
    fn accents() -> Vec<Rgb> {
        let named = ["#ffff00", "#000000", "#ffffff", "#3d5afe", "#00ff00", "#808080", "#767676", "#161920", "#f5f6f8"];
        let mut all: Vec<Rgb> = named.iter().map(|text| Rgb::parse(text).unwrap()).collect();
        let steps = (0..=255).step_by(15);
        for r in steps.clone() {
            for g in steps.clone() {
                all.extend(steps.clone().map(|b| Rgb(r as u8, g as u8, b as u8)));
            }
        }
        all
    }

    #[test]
    fn every_accent_stays_legible_in_both_themes() {
        for accent in accents() {
            for theme in [&LIGHT, &DARK] {
                let worn = theme.wear(accent);
                for surface in theme.surfaces() {
                    assert!(worn.text.contrast(surface) >= 4.5, "text {} of {accent} on {surface}", worn.text);
                    assert!(worn.edge.contrast(surface) >= 3.0, "edge {} of {accent} on {surface}", worn.edge);
                }
                assert!(worn.on_accent.contrast(worn.accent) >= 4.5, "on {accent}");
                assert!(worn.on_accent.contrast(worn.hover) >= 4.5, "on hover {} of {accent}", worn.hover);
                assert!(theme.ink.contrast(worn.tint) >= 4.5, "ink on tint {} of {accent}", worn.tint);
                assert!(theme.soft.contrast(worn.wash) >= 4.5, "soft on wash {} of {accent}", worn.wash);
                assert_ne!(worn.hover, worn.accent, "hover shows nothing on {accent}");
            }
        }
    }

    #[test]
    fn an_accent_that_holds_is_left_alone() {
        let blue = Rgb::parse("#3d5afe").unwrap();
        assert_eq!(LIGHT.wear(blue).text, blue);
        assert_eq!(LIGHT.wear(blue).edge, blue);
        assert_eq!(blue.foreground(), Rgb::WHITE);
        assert_eq!(Rgb::parse("#ffff00").unwrap().foreground(), Rgb::BLACK);
    }

    #[test]
    fn moving_keeps_the_hue() {
        for text in ["#ffff00", "#00ff00", "#3d5afe", "#e91e63"] {
            let accent = Rgb::parse(text).unwrap();
            for theme in [&LIGHT, &DARK] {
                let turned = (Oklch::of(theme.wear(accent).text).h - Oklch::of(accent).h).abs();
                assert!(turned < 0.06, "{text} turned by {turned} rad");
            }
        }
    }

    #[test]
    fn the_themes_hold_without_an_accent() {
        for theme in [&LIGHT, &DARK] {
            for surface in theme.surfaces() {
                assert!(theme.ink.contrast(surface) >= 7.0);
                assert!(theme.soft.contrast(surface) >= 4.5);
            }
            for surface in [theme.card, theme.field] {
                assert!(theme.edge.contrast(surface) >= 3.0, "edge on {surface}");
                assert!(theme.bad.contrast(surface) >= 4.5);
            }
            assert!(theme.good.contrast(theme.card) >= 4.5);
            assert!(theme.bad.contrast(theme.bad_ground) >= 4.5);
            assert!(theme.ink.contrast(theme.bad_ground) >= 7.0);
        }
    }

    #[test]
    fn contrast_agrees_with_known_values() {
        assert!((Rgb::BLACK.contrast(Rgb::WHITE) - 21.0).abs() < 1e-9);
        assert!((Rgb::hex(0x767676).contrast(Rgb::WHITE) - 4.54).abs() < 0.01);
    }

    #[test]
    fn only_six_digits_parse() {
        assert_eq!(Rgb::parse("#3D5aFe"), Some(Rgb(0x3d, 0x5a, 0xfe)));
        for text in ["", "#", "3d5afe", "#fff", "#3d5afe ", "#3d5afg", "#+d5afe", "#3d5afe00", "#äää"] {
            assert_eq!(Rgb::parse(text), None, "{text}");
        }
        assert_eq!(custom_properties("red; } body { display: none"), custom_properties(DEFAULT_ACCENT));
    }
}
