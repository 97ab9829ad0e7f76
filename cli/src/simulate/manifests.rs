//! Manifests from files, in order: what is to be added, changed or taken away.
use super::error::SimulateError;
use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A file larger than this is the wrong one.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What `-f -` is called in messages.
const STDIN: &str = "standard input";

/// One object of one file.
#[derive(Debug)]
pub(super) struct Manifest {
    /// File and position, for messages: `pods.yaml, document 2`.
    pub(super) at: String,
    pub(super) kind: String,
    /// It carries `$patch: delete`: the object goes.
    pub(super) delete: bool,
    pub(super) object: Value,
}

impl Manifest {
    pub(super) fn text_at(&self, pointer: &str) -> Option<&str> {
        self.object.pointer(pointer).and_then(Value::as_str)
    }

    /// The object as its type.
    pub(super) fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, SimulateError> {
        T::deserialize(&self.object).map_err(|source| SimulateError::Manifest {
            at: self.at.clone(),
            kind: self.kind.clone(),
            source,
        })
    }
}

/// Reads all files, in their order; `-` is standard input.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Manifest>, SimulateError> {
    let mut manifests = Vec::new();
    for file in files {
        let (name, text) = contents(file)?;
        for (index, document) in documents(&name, &text)?.into_iter().enumerate() {
            flatten(&format!("{name}, document {}", index + 1), document, &mut manifests)?;
        }
    }
    Ok(manifests)
}

/// A file's text, bounded.
pub(super) fn contents(file: &Path) -> Result<(String, String), SimulateError> {
    let name = if file == Path::new("-") { STDIN.to_owned() } else { file.display().to_string() };
    let failed = |source| SimulateError::File { file: name.clone(), source };
    let mut text = String::new();
    let mut limited: Box<dyn std::io::Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin().take(FILE_BYTES_MAX + 1)),
        false => Box::new(std::fs::File::open(file).map_err(failed)?.take(FILE_BYTES_MAX + 1)),
    };
    limited.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(SimulateError::TooLarge { file: name, most_bytes: FILE_BYTES_MAX });
    }
    Ok((name, text))
}

fn documents(name: &str, text: &str) -> Result<Vec<Value>, SimulateError> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|source| SimulateError::Yaml { file: name.to_owned(), message: source.to_string() })?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

/// A `List` is its items.
fn flatten(at: &str, mut object: Value, into: &mut Vec<Manifest>) -> Result<(), SimulateError> {
    let Some(kind) = object.get("kind").and_then(Value::as_str).map(str::to_owned) else {
        return Err(SimulateError::NoKind { at: at.to_owned() });
    };
    if let (true, Some(Value::Array(items))) = (kind.ends_with("List"), object.get_mut("items").map(Value::take)) {
        for (index, item) in items.into_iter().enumerate() {
            flatten(&format!("{at}, item {}", index + 1), item, into)?;
        }
        return Ok(());
    }
    let delete = match object.as_object_mut().and_then(|fields| fields.remove("$patch")) {
        None => false,
        Some(Value::String(patch)) if patch == "delete" => true,
        Some(other) => {
            return Err(SimulateError::Patch { at: at.to_owned(), value: other.to_string() });
        }
    };
    into.push(Manifest { at: at.to_owned(), kind, delete, object });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Manifest>, SimulateError> {
        let mut all = Vec::new();
        for (index, document) in documents("f", text)?.into_iter().enumerate() {
            flatten(&format!("f, document {}", index + 1), document, &mut all)?;
        }
        Ok(all)
    }

    #[test]
    fn documents_lists_and_deletions_in_order() {
        let all = parse(
            "kind: Pod\nmetadata: {name: a}\n---\n---\nkind: PodList\nitems: [{kind: Pod, metadata: {name: b}}]\n---\n\
             kind: Pod\n$patch: delete\nmetadata: {name: a}\n",
        )
        .unwrap();
        let seen: Vec<_> = all.iter().map(|one| (one.text_at("/metadata/name").unwrap(), one.delete)).collect();
        assert_eq!(seen, [("a", false), ("b", false), ("a", true)]);
        assert!(all[2].object.get("$patch").is_none());
    }

    #[test]
    fn what_is_no_manifest_is_named_with_its_place() {
        assert!(parse("metadata: {}").unwrap_err().to_string().contains("f, document 1"));
        assert!(parse("kind: Pod\n$patch: replace").unwrap_err().to_string().contains("$patch"));
        assert!(parse("{").unwrap_err().to_string().contains("f"));
    }
}
