//! JSON Schema as far as the admin API's description uses it, and stricter in one thing: what is not
//! described must not be there.

use serde_json::Value;

/// Everything about `value` that is not as `schema` says; references lead into `document`.
pub fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(document, schema, value, "", &mut faults);
    faults
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        let target = target.unwrap_or_else(|| panic!("{reference} leads nowhere"));
        check(document, target, value, at, faults);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(options) = schema[choice].as_array() {
            let fits = |option: &&Value| self::faults(document, option, value).is_empty();
            if options.iter().filter(fits).count() != 1 {
                faults.push(format!("{at}: {value} is none of {choice}"));
            }
        }
    }
    if let Some(kinds) = schema.get("type") {
        let kinds: Vec<_> = match kinds.as_array() {
            Some(kinds) => kinds.iter().collect(),
            None => vec![kinds],
        };
        if !kinds
            .iter()
            .any(|kind| is_a(value, kind.as_str().unwrap_or_default()))
        {
            faults.push(format!("{at}: {value} is none of {kinds:?}"));
        }
    }
    let is_const = |constant: &Value| constant == value;
    if schema.get("const").is_some_and(|it| !is_const(it)) {
        faults.push(format!("{at}: {value} is not {}", schema["const"]));
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|all| !all.contains(value))
    {
        faults.push(format!("{at}: {value} is none of {}", schema["enum"]));
    }
    if let (Some(items), Some(all)) = (schema.get("items"), value.as_array()) {
        for (number, item) in all.iter().enumerate() {
            check(document, items, item, &format!("{at}/{number}"), faults);
        }
    }
    if let (Some(properties), Some(all)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, value) in all {
            match properties.get(name) {
                Some(schema) => check(document, schema, value, &format!("{at}/{name}"), faults),
                None => faults.push(format!("{at}: `{name}` is not described")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if !all.contains_key(name.as_str().unwrap_or_default()) {
                faults.push(format!("{at}: {name} is missing"));
            }
        }
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{kind} is no type"),
    }
}
