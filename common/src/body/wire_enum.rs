//! Enumerations that travel by name.

/// Declares an enumeration that is written by name and read by name or, as some clients send it, by ordinal. The first
/// name of the list has ordinal 0. An unknown name reads as the default, because a body must not fail on a value that
/// came with a later release.
macro_rules! wire_enum {
    ($(#[$attribute:meta])* $type:ident { $($(#[$variant_attribute:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_attribute])* $variant,)+ }

        impl $type {
            const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The value with this wire name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }

        impl $crate::body::bounds::Bounded for $type {}

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Name;

                impl serde::de::Visitor<'_> for Name {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("a name of ", stringify!($type)))
                    }

                    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<$type, E> {
                        Ok($type::from_name(name).unwrap_or_default())
                    }

                    fn visit_u64<E: serde::de::Error>(self, ordinal: u64) -> Result<$type, E> {
                        let value = usize::try_from(ordinal).ok().and_then(|at| $type::ALL.get(at));
                        Ok(value.copied().unwrap_or_default())
                    }

                    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<$type, E> {
                        Ok($type::default())
                    }
                }

                from.deserialize_any(Name)
            }
        }
    };
}

pub(super) use wire_enum;
