//! The language that a sender says it is written in.

/// Language of a frame's sender. Kept as the byte of the binary header, so that unknown ones pass through unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Language(u8);

/// Names by code, as the JSON header spells them.
const NAMES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST",
    "NODE_JS",
];

impl Language {
    /// Java, and what servers say whatever they are written in.
    pub const JAVA: Language = Language(0);
    /// C++; gets the list form of an offset reset.
    pub const CPP: Language = Language(1);
    /// Everything that has no name of its own.
    pub const OTHER: Language = Language(7);
    /// Go.
    pub const GO: Language = Language(9);
    /// Rust.
    pub const RUST: Language = Language(12);

    /// The language of a byte in a binary header. Every byte is accepted.
    pub fn from_code(code: u8) -> Language {
        Language(code)
    }

    /// The byte for a binary header.
    pub fn code(self) -> u8 {
        self.0
    }

    /// The language of a name in a JSON header; an unknown name reads as [`Language::OTHER`].
    pub fn from_name(name: &str) -> Language {
        NAMES.iter().position(|known| *known == name).map_or(Language::OTHER, |code| Language(code as u8))
    }

    /// The name for a JSON header.
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or("OTHER")
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_agree() {
        for code in 0..14 {
            let language = Language::from_code(code);
            assert_eq!(Language::from_name(language.name()), language);
        }
        assert_eq!(Language::from_name("RUST").code(), 12);
        assert_eq!(Language::from_name("COBOL"), Language::OTHER);
        assert_eq!(Language::from_code(99).name(), "OTHER");
    }
}
