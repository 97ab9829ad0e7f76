//! Reads the node names of a request by hand: of its bytes nearly all are names, and a general reader spends more on each
//! than a verdict costs.
//!
//! It knows the form that kube-scheduler writes, an object of `Pod`, `Nodes` (null) and `NodeNames` in any order, names
//! without escapes, and leaves everything else, right or wrong, to the general reader: what it reads, that one would read
//! the same.
use crate::wire::PodPart;

/// What a filter or prioritize request says.
#[derive(Debug)]
pub(crate) struct Scanned<'a> {
    pub(crate) pod: PodPart,
    /// The names with their quotes.
    pub(crate) names: Vec<&'a str>,
}

/// Room is made for so many names at most before they are seen.
const NAMES_EXPECTED_MAX: usize = 1 << 14;

/// The request, if it has the known form.
pub(crate) fn request(body: &[u8]) -> Option<Scanned<'_>> {
    let mut reader = Reader { text: std::str::from_utf8(body).ok()?, at: 0 };
    let (mut pod, mut names, mut nodes) = (None, None, None);
    reader.expect(b'{')?;
    loop {
        match reader.string()? {
            "\"Pod\"" if pod.is_none() => {
                reader.expect(b':')?;
                pod = Some(reader.pod()?);
            }
            "\"NodeNames\"" if names.is_none() => {
                reader.expect(b':')?;
                names = Some(reader.names()?);
            }
            "\"Nodes\"" if nodes.is_none() => {
                reader.expect(b':')?;
                nodes = Some(reader.null()?);
            }
            _ => return None,
        }
        match reader.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    reader.skip_space();
    let whole = reader.at == reader.text.len();
    Some(Scanned { pod: pod?, names: names? }).filter(|_| whole)
}

struct Reader<'a> {
    text: &'a str,
    /// The next byte; never within a character.
    at: usize,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no space, which must be ASCII.
    fn next(&mut self) -> Option<u8> {
        self.skip_space();
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        byte.is_ascii().then_some(byte)
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.next()? == wanted).then_some(())
    }

    fn null(&mut self) -> Option<()> {
        self.skip_space();
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += 4;
        rest.starts_with(b"null").then_some(())
    }

    /// A string without escapes, with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let rest = self.text.as_bytes().get(self.at..)?;
        let length = plain_length(rest);
        if rest.get(length) != Some(&b'"') {
            return None;
        }
        let start = self.at - 1;
        self.at += length + 1;
        self.text.get(start..self.at)
    }

    fn names(&mut self) -> Option<Vec<&'a str>> {
        self.expect(b'[')?;
        self.skip_space();
        if self.text.as_bytes().get(self.at) == Some(&b']') {
            self.at += 1;
            return Some(Vec::new());
        }
        let first = self.string()?;
        // The names of a cluster are about as long as each other.
        let left = self.text.len() - self.at;
        let mut names = Vec::with_capacity((left / (first.len() + 1) + 2).min(NAMES_EXPECTED_MAX));
        names.push(first);
        loop {
            match self.next()? {
                b',' => names.push(self.string()?),
                b']' => return Some(names),
                _ => return None,
            }
        }
    }

    fn pod(&mut self) -> Option<PodPart> {
        self.skip_space();
        let rest = self.text.get(self.at..)?;
        if !rest.starts_with('{') {
            return None;
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<PodPart>();
        let pod = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(pod)
    }
}

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// How many bytes come before the first that is a quote, a backslash or a control character. Eight at a time: a name is
/// two such words.
fn plain_length(bytes: &[u8]) -> usize {
    let words = bytes.chunks_exact(8);
    let mut length = 0;
    for word in words {
        let Ok(word) = <[u8; 8]>::try_from(word) else { break };
        let special = special_bytes(u64::from_le_bytes(word));
        if special != 0 {
            return length + special.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = bytes.get(length..).unwrap_or_default();
    let special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
    length + rest.iter().position(special).unwrap_or(rest.len())
}

/// The high bit of each byte that is a quote, a backslash or a control character; of the bytes above the first such one it
/// may be set too. (A byte less than n, and no carry from below, makes its own high bit go up when n is subtracted.)
fn special_bytes(word: u64) -> u64 {
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, b' ') | equal(b'"') | equal(b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SchedulingArgs;

    /// What the general reader makes of it, if that is names and a pod.
    fn general(body: &[u8]) -> Option<(String, Vec<String>)> {
        let args: SchedulingArgs<'_> = crate::answer::object(body).ok()?;
        let names = args.node_names?.into_iter().map(|name| name.0.into_owned()).collect();
        Some((format!("{:?}", args.pod?), names))
    }

    fn by_hand(body: &[u8]) -> Option<(String, Vec<String>)> {
        let scanned = request(body)?;
        let bare = |name: &&str| name[1..name.len() - 1].to_owned();
        Some((format!("{:?}", scanned.pod), scanned.names.iter().map(bare).collect()))
    }

    const POD: &str = r#"{"metadata":{"name":"p","uid":"u"},"spec":{"containers":[{"name":"c","image":"a{\"b]"}]}}"#;

    #[test]
    fn the_form_of_kube_scheduler_is_read_by_hand() {
        for names in
            ["[]", "[ ]", r#"["a"]"#, r#"["n-1.example","n-2" , "a-name-of-more-than-two-words"]"#, r#"["ü",""]"#]
        {
            for body in [
                format!(r#"{{"Pod":{POD},"Nodes":null,"NodeNames":{names}}}"#),
                format!("\n{{ \"NodeNames\" : {names} , \"Pod\" : {POD} }} \r\n"),
            ] {
                let read = by_hand(body.as_bytes());
                assert!(read.is_some(), "{body}");
                assert_eq!(read, general(body.as_bytes()));
            }
        }
    }

    #[test]
    fn every_other_form_is_left_to_the_general_reader() {
        for body in [
            "",
            "{",
            "{}",
            "[]",
            "null",
            r#"{"Pod":{},"NodeNames":null}"#,
            r#"{"Pod":{},"NodeNames":["a",]}"#,
            r#"{"Pod":{},"NodeNames":["a" "b"]}"#,
            r#"{"Pod":{},"NodeNames":["a\n"]}"#,
            "{\"Pod\":{},\"NodeNames\":[\"a\u{1}\"]}",
            r#"{"Pod":{},"NodeNames":[1]}"#,
            r#"{"Pod":{},"NodeNames":["a"],"NodeNames":["b"]}"#,
            r#"{"Pod":{},"NodeNames":["a"],"Other":1}"#,
            r#"{"Pod":{},"NodeNames":["a"]}}"#,
            r#"{"Pod":[],"NodeNames":["a"]}"#,
            r#"{"Pod":{},"Nodes":{},"NodeNames":["a"]}"#,
            r#"{"Pod":{},"Nodes":nul,"NodeNames":["a"]}"#,
        ] {
            assert!(request(body.as_bytes()).is_none(), "{body}");
        }
        assert!(request(b"{\"Pod\":{},\"NodeNames\":[\"\xff\"]}").is_none());
    }

    /// Whatever is read by hand, the general reader reads the same: bodies with pieces cut, doubled and swapped.
    #[test]
    fn what_is_read_by_hand_the_general_reader_reads_the_same() {
        let pieces: [&str; 24] = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            " ",
            "\n",
            "null",
            "nul",
            "\"Pod\"",
            "\"Nodes\"",
            "\"NodeNames\"",
            "\"a\"",
            "\"b-1.example\"",
            "\"\\u0061\"",
            "\u{1f}",
            "ü",
            "1",
            "{}",
            POD,
            "\"Other\":{}",
        ];
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let mut by_hand_count = 0;
        for _ in 0..40_000 {
            let names: Vec<&str> = (0..next(4)).map(|_| pieces[15 + next(3)]).collect();
            let mut parts =
                vec!["{", "\"Pod\"", ":", POD, ",", "\"Nodes\"", ":", "null", ",", "\"NodeNames\"", ":", "["];
            for (at, name) in names.iter().enumerate() {
                parts.extend((at > 0).then_some(","));
                parts.push(name);
            }
            parts.extend(["]", "}"]);
            for _ in 0..next(3) {
                let at = next(parts.len());
                match next(4) {
                    0 => drop(parts.remove(at)),
                    1 => parts.insert(at, pieces[next(pieces.len())]),
                    2 => parts[at] = pieces[next(pieces.len())],
                    _ => {
                        let other = next(parts.len());
                        parts.swap(at, other);
                    }
                }
                if parts.is_empty() {
                    break;
                }
            }
            let body = parts.concat();
            if let Some(read) = by_hand(body.as_bytes()) {
                by_hand_count += 1;
                assert_eq!(Some(read), general(body.as_bytes()), "{body}");
            }
        }
        assert!(by_hand_count > 5_000, "{by_hand_count}");
    }

    #[test]
    fn every_byte_ends_a_name_or_does_not() {
        for byte in 0..=255u8 {
            for before in 0..20 {
                for after in [0, 3, 9, 20] {
                    let mut bytes = vec![b'a'; before];
                    bytes.push(byte);
                    bytes.resize(before + 1 + after, b'z');
                    let ends = byte < b' ' || byte == b'"' || byte == b'\\';
                    assert_eq!(plain_length(&bytes), if ends { before } else { bytes.len() }, "{byte} after {before}");
                }
            }
        }
    }
}
