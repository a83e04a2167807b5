//! What the document (OpenAPI) says of a row: what it is for, what its parameters mean, and the names of the schemas of its bodies.

#![cfg_attr(
    not(test),
    allow(dead_code, reason = "only the test that writes the document reads it")
)]

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub what: &'static str,
    /// What can be written.
    pub values: Values,
    /// Without it nothing can be answered.
    pub required: bool,
}

/// What can be written for a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Any text.
    Text,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A parameter that is a text.
pub const fn text(name: &'static str, what: &'static str) -> Parameter {
    Parameter { name, what, values: Values::Text, required: false }
}

/// A parameter that is a number.
pub const fn number(name: &'static str, what: &'static str) -> Parameter {
    Parameter { values: Values::Number, ..text(name, what) }
}

/// A parameter that is true or false.
pub const fn flag(name: &'static str, what: &'static str) -> Parameter {
    Parameter { values: Values::Flag, ..text(name, what) }
}

/// A parameter that is one of some words.
pub const fn one_of(
    name: &'static str,
    words: &'static [&'static str],
    what: &'static str,
) -> Parameter {
    Parameter { values: Values::OneOf(words), ..text(name, what) }
}

impl Parameter {
    /// The same, and it must be there.
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

/// What the document says of a row.
#[derive(Clone, Copy, Debug)]
pub struct Doc {
    /// What it is for.
    pub summary: &'static str,
    /// What it takes.
    pub body: Body,
    /// What it answers.
    pub gives: Gives,
}

/// What a row takes in the body of a request.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Nothing.
    None,
    /// JSON of this schema.
    Json(&'static str),
    /// JSON of this schema, or nothing.
    Optional(&'static str),
    /// Bytes.
    Bytes,
}

/// What a row answers when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub enum Gives {
    /// JSON of this schema.
    One(&'static str),
    /// A list of this schema's.
    List(&'static str),
    /// An empty body, which means this.
    Done(&'static str),
    /// Text of one of these media types.
    Text(&'static [&'static str]),
    /// Server-sent events, whose data is JSON of this schema.
    Events(&'static str),
    /// The document.
    Document,
    /// What Prometheus's API answers.
    Prometheus,
}

/// Says what a row is for.
pub const fn says(summary: &'static str) -> Doc {
    Doc { summary, ..Doc::NOTHING }
}

impl Doc {
    /// Nothing is said.
    pub const NOTHING: Self = Self { summary: "", body: Body::None, gives: Gives::Done("") };

    /// It takes JSON of a schema.
    pub const fn takes(self, schema: &'static str) -> Self {
        Self { body: Body::Json(schema), ..self }
    }

    /// It takes JSON of a schema, or nothing.
    pub const fn may_take(self, schema: &'static str) -> Self {
        Self { body: Body::Optional(schema), ..self }
    }

    /// It takes bytes.
    pub const fn takes_bytes(self) -> Self {
        Self { body: Body::Bytes, ..self }
    }

    /// It answers JSON of a schema.
    pub const fn gives(self, schema: &'static str) -> Self {
        self.answers(Gives::One(schema))
    }

    /// It answers a list.
    pub const fn lists(self, schema: &'static str) -> Self {
        self.answers(Gives::List(schema))
    }

    /// It answers that it is done, in words that say how far.
    pub const fn done(self, meaning: &'static str) -> Self {
        self.answers(Gives::Done(meaning))
    }

    /// It answers something else.
    pub const fn answers(self, gives: Gives) -> Self {
        Self { gives, ..self }
    }
}
