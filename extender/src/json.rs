//! Writing JSON straight into one buffer: replies repeat names by the thousand, and no node may cost an allocation.

/// Appends `text` as a JSON string. Names of nodes need no escapes, which is checked rather than believed.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing a str to a Vec cannot fail.
        drop(serde_json::to_writer(out, text));
    }
}

/// The items of an array under way; the caller writes the closing bracket.
pub(crate) struct Array<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Array<'a> {
    /// Begins with `head`, which ends in the opening bracket.
    pub(crate) fn open(out: &'a mut Vec<u8>, head: &str) -> Self {
        out.extend_from_slice(head.as_bytes());
        Self { out, first: true }
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.separate();
        string(self.out, text);
    }

    /// Appends JSON text as it is.
    pub(crate) fn raw(&mut self, text: &str) {
        self.separate();
        self.out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_where_they_must_be() {
        for text in ["", "node-1", "a\"b", "back\\slash", "line\nbreak", "tab\t", "ümlaut", "\u{0}"] {
            let mut out = Vec::new();
            string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn arrays_are_json() {
        let mut out = Vec::new();
        let mut list = Array::open(&mut out, "{\"l\":[");
        list.string("a");
        list.raw("null");
        out.extend_from_slice(b"]}");
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let wanted = serde_json::json!({"l": ["a", null]});
        assert_eq!(value, wanted);
    }
}
