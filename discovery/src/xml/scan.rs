//! XML as hwloc writes it, taken apart: elements, attributes and text, within bounds.

use std::io::Read;
use std::path::Path;

use crate::{DiscoveryError, XmlError};

/// Longest text read; the largest machines hwloc's authors collected take 1 MiB.
const BYTES_MAX: u64 = 16 << 20;

/// Elements may be nested this deep; real ones are below 40.
const DEPTH_MAX: usize = 128;

/// Most elements; a machine of 16,384 CPUs has half as many.
const ELEMENTS_MAX: usize = 1 << 18;

/// The text of a file that is not too long.
pub(super) fn read(path: &Path) -> Result<String, DiscoveryError> {
    let failed = |source| DiscoveryError::Read { path: path.to_owned(), source };
    let too_long = |bytes| DiscoveryError::XmlTooLong { path: path.to_owned(), bytes, max: BYTES_MAX };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.len() > BYTES_MAX {
        return Err(too_long(meta.len()));
    }
    // A pipe has no length; it ends at the bound all the same.
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > BYTES_MAX { Err(too_long(text.len() as u64)) } else { Ok(text) }
}

/// Gives every element and text of an hwloc XML of format 1 or 2 to `visit`, in the order of the text.
pub(super) fn scan<'a>(
    text: &'a str,
    mut visit: impl FnMut(Event<'a>) -> Result<(), XmlError>,
) -> Result<(), XmlError> {
    if text.len() as u64 > BYTES_MAX {
        return Err(XmlError::TooLong { bytes: text.len(), max: BYTES_MAX });
    }
    let mut open: Vec<&str> = Vec::new();
    let mut elements = 0usize;
    let mut ended = false;
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        visit(Event::Text(&rest[..start]))?;
        let (tag, after) = tag_at(&rest[start..])?;
        rest = after;
        let Tag::Element { name, attributes, form } = tag else { continue };
        match form {
            Form::Close if open.pop() == Some(name) => visit(Event::Close)?,
            Form::Close => return Err(XmlError::Unbalanced { element: excerpt(name) }),
            Form::Open | Form::Empty => {
                if open.is_empty() {
                    root(name, attributes, ended)?;
                }
                elements += 1;
                visit(Event::Open(Element { name, attributes }))?;
                match form {
                    Form::Open => open.push(name),
                    _ => visit(Event::Close)?,
                }
            }
        }
        ended |= open.is_empty();
        if open.len() > DEPTH_MAX {
            return Err(XmlError::TooDeep { max: DEPTH_MAX });
        }
        if elements > ELEMENTS_MAX {
            return Err(XmlError::TooManyElements { max: ELEMENTS_MAX });
        }
    }
    match open.last() {
        Some(element) => Err(XmlError::Truncated { element: excerpt(element) }),
        None if !ended => Err(XmlError::NoTopology { found: excerpt(text.trim_start()) }),
        None => Ok(()),
    }
}

/// What a text consists of.
pub(super) enum Event<'a> {
    Open(Element<'a>),
    Text(&'a str),
    Close,
}

/// An element that begins.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) name: &'a str,
    attributes: &'a str,
}

impl<'a> Element<'a> {
    /// The value of an attribute as it is written; the first, where it is there twice.
    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        attribute(self.attributes, name)
    }

    /// A number of an attribute, if it is there.
    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, XmlError> {
        let wrong = |text| XmlError::Value { attribute: name, text: excerpt(text), expected: "a number" };
        self.attribute(name).map(|text| text.trim().parse().map_err(|_| wrong(text))).transpose()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Open,
    Close,
    Empty,
}

enum Tag<'a> {
    Element { name: &'a str, attributes: &'a str, form: Form },
    Other,
}

/// The tag that `text` begins with, and what follows it.
fn tag_at(text: &str) -> Result<(Tag<'_>, &str), XmlError> {
    let truncated = || XmlError::Truncated { element: excerpt(text) };
    let until = |end: &str| text.find(end).map(|at| (&text[..at], &text[at + end.len()..])).ok_or_else(truncated);
    if text.starts_with("<!--") {
        return Ok((Tag::Other, until("-->")?.1));
    }
    if text.starts_with("<?") {
        return Ok((Tag::Other, until("?>")?.1));
    }
    if text.starts_with("<!") {
        let (declaration, after) = until(">")?;
        // Entities of its own can make a short text long; hwloc writes none.
        return if declaration.starts_with("<!DOCTYPE") && !declaration.contains('[') {
            Ok((Tag::Other, after))
        } else {
            Err(XmlError::Declaration { found: excerpt(declaration) })
        };
    }
    let mut quote = None;
    let end = text.bytes().position(|byte| match quote {
        Some(open) => {
            quote = Some(open).filter(|&open| open != byte);
            false
        }
        None => {
            quote = Some(byte).filter(|byte| matches!(byte, b'"' | b'\''));
            byte == b'>'
        }
    });
    let end = end.ok_or_else(truncated)?;
    let (inside, after) = (&text[1..end], &text[end + 1..]);
    let (inside, form) = match (inside.strip_prefix('/'), inside.strip_suffix('/')) {
        (Some(inside), _) => (inside, Form::Close),
        (None, Some(inside)) => (inside, Form::Empty),
        (None, None) => (inside, Form::Open),
    };
    let name_end = inside.find(|character: char| character.is_ascii_whitespace()).unwrap_or(inside.len());
    let (name, attributes) = inside.split_at(name_end);
    Ok((Tag::Element { name, attributes, form }, after))
}

/// The outermost element is one topology, of a format that is understood.
fn root(name: &str, attributes: &str, ended: bool) -> Result<(), XmlError> {
    if ended || !matches!(name, "topology" | "root") {
        return Err(XmlError::NoTopology { found: excerpt(name) });
    }
    match attribute(attributes, "version") {
        // Format 1 had no version.
        None => Ok(()),
        Some(version) if matches!(version.split('.').next(), Some("1" | "2")) => Ok(()),
        Some(version) => Err(XmlError::Version { version: excerpt(version) }),
    }
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = attributes;
    loop {
        let (key, after) = rest.split_once('=')?;
        let value = after.trim_start();
        let quote = value.chars().next().filter(|character| matches!(character, '"' | '\''))?;
        let (value, after) = value[1..].split_once(quote)?;
        if key.trim() == name {
            return Some(value);
        }
        rest = after;
    }
}

/// Keeps an error message short whatever the input was.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}
