//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386).
use super::Refusal;
use serde_json::Value;

/// All operations or none.
pub(super) fn json_patch(object: &mut Value, operations: &Value) -> Result<(), Refusal> {
    let mut next = object.clone();
    for operation in operations.as_array().ok_or(Refusal::Unprocessable)? {
        apply(&mut next, operation)?;
    }
    *object = next;
    Ok(())
}

fn apply(object: &mut Value, operation: &Value) -> Result<(), Refusal> {
    let path = operation["path"].as_str().ok_or(Refusal::Unprocessable)?;
    let value = || operation.get("value").cloned().ok_or(Refusal::Unprocessable);
    match operation["op"].as_str() {
        Some("test") if object.pointer(path) == operation.get("value") => Ok(()),
        Some("replace") => {
            *object.pointer_mut(path).ok_or(Refusal::Unprocessable)? = value()?;
            Ok(())
        }
        Some("add") => add(object, path, value()?),
        Some("remove") => remove(object, path),
        _ => Err(Refusal::Unprocessable),
    }
}

/// The parent of what a path names, and the last part of the path.
fn parent<'a>(object: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), Refusal> {
    let (above, last) = path.rsplit_once('/').ok_or(Refusal::Unprocessable)?;
    let parent = object.pointer_mut(above).ok_or(Refusal::Unprocessable)?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(object: &mut Value, path: &str, value: Value) -> Result<(), Refusal> {
    match parent(object, path)? {
        (Value::Object(map), last) => {
            map.insert(last, value);
        }
        (Value::Array(list), last) => {
            let index = if last == "-" { Some(list.len()) } else { last.parse().ok() };
            let index = index.filter(|index| *index <= list.len()).ok_or(Refusal::Unprocessable)?;
            list.insert(index, value);
        }
        _ => return Err(Refusal::Unprocessable),
    }
    Ok(())
}

fn remove(object: &mut Value, path: &str) -> Result<(), Refusal> {
    match parent(object, path)? {
        (Value::Object(map), last) => map.remove(&last).map(drop).ok_or(Refusal::Unprocessable),
        (Value::Array(list), last) => {
            let index = last.parse().ok().filter(|index| *index < list.len()).ok_or(Refusal::Unprocessable)?;
            list.remove(index);
            Ok(())
        }
        _ => Err(Refusal::Unprocessable),
    }
}

pub(super) fn merge_patch(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(serde_json::Map::new());
    }
    for (key, change) in changes {
        if change.is_null() {
            if let Some(map) = object.as_object_mut() {
                map.remove(key);
            }
        } else {
            merge_patch(&mut object[key.as_str()], change);
        }
    }
    // An index creates what is not there as null.
    if let Some(map) = object.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}
