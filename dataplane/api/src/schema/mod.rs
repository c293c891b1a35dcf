//! What fields there are. A field is declared once, in the struct that has it: serde and schemars make
//! of that its name, kind, range, default and text. Bodies and files are [read](read()) by it, and the
//! OpenAPI document is made of it; the CLI's flags and the tables of the documentation are held against
//! it by tests.
//!
//! What neither serde nor schemars can say stands in two extensions: `x-accepted`, what is accepted in
//! words where those of kind and range do not do, and `x-observed`, how names begin that operators
//! take for fields.

mod declared;
mod read;
mod words;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use declared::fields_of;
pub(crate) use read::label_of;
pub use read::{NOT_CONFIGURED, Read, Spelling, read};
pub use words::{nearest, range_text, shown};

/// A struct whose fields are named.
#[derive(Clone, Debug)]
pub struct Object {
    /// What it is.
    pub text: String,
    /// Its fields, as they are declared.
    pub fields: Vec<Field>,
    /// How names begin that are observed and not configured.
    observed: Option<String>,
}

/// A field of an [`Object`].
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name, in JSON.
    pub name: String,
    /// What it is, in a few sentences.
    pub text: String,
    /// Whether it must be there.
    pub is_required: bool,
    /// Whether it may be `null`, which says as much as its absence.
    pub is_nullable: bool,
    /// What it is when it is absent.
    pub default: Option<Value>,
    /// What it holds.
    pub kind: Kind,
    /// What is accepted (of a list: as an element), where kind and range do not tell.
    accepted: Option<String>,
}

/// What a field holds.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A string.
    Text,
    /// An IPv4 address.
    Address,
    /// An integer.
    Integer {
        /// Smallest that is accepted.
        least: u64,
        /// Largest that is accepted.
        most: u64,
        /// Largest that there is room for.
        holds: u64,
    },
    /// One of some words.
    Word(Vec<String>),
    /// Several of one kind.
    List(Box<Kind>),
    /// Named fields.
    Object(Object),
}

/// What has a place of its own in the API: its type declares its fields.
pub trait Resource: JsonSchema + DeserializeOwned {
    /// What several are called in JSON.
    const MANY: &'static str;
    /// What a table of one is called in TOML.
    const ONE: &'static str;

    /// Its fields.
    fn object() -> &'static Object;
}

impl Object {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Kind {
    /// What is several of, or itself.
    pub fn element(&self) -> &Kind {
        match self {
            Kind::List(element) => element,
            one => one,
        }
    }
}
