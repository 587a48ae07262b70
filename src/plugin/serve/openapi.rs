//! The endpoints as an OpenAPI 3.1 document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::catalogue::Declared;
use crate::plugin::manifest::{Endpoint, Field};

/// Describes all endpoints. Paths that differ only in the names of their parameters are one path, as OpenAPI wants it: the names
/// are those of the first.
pub(super) fn describe(all: &[Declared]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let (mut first, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for Declared { plugin, endpoint } in all {
        let path = *first.entry(&endpoint.shape).or_insert(&endpoint.path);
        let mut operation = operation(plugin, endpoint, path);
        let mut id = id(endpoint);
        while !ids.insert(id.clone()) {
            id.push('_');
        }
        operation["operationId"] = id.into();
        let described = paths.entry(path.clone()).or_insert_with(|| json!({}));
        described[endpoint.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "rowbeat", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "securitySchemes": {
            "token": { "type": "http", "scheme": "bearer", "description": "rowbeat token create" },
        }, "schemas": {
            "Error": { "type": "object", "properties": { "error": { "type": "string" } } },
            "Errors": { "type": "object", "properties": {
                "errors": { "type": "object", "additionalProperties": { "type": "string" } } } },
        } },
    })
}

/// A name for the operation, of letters, digits and _.
fn id(endpoint: &Endpoint) -> String {
    let id = format!("{} {}", endpoint.method, endpoint.path);
    id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn operation(plugin: &str, endpoint: &Endpoint, path: &str) -> Value {
    let renamed: BTreeMap<&str, &str> = endpoint.path.split('/').zip(path.split('/')).collect();
    let name = |field: &Field| {
        let part = format!("{{{}}}", field.name);
        let known = renamed.get(part.as_str()).filter(|_| field.place.as_deref() == Some("path"));
        known.map_or_else(|| field.name.clone(), |part| part.trim_matches(['{', '}']).to_owned())
    };
    let parameters: Vec<Value> = endpoint
        .input
        .iter()
        .filter(|field| {
            matches!(field.place.as_deref(), Some("path" | "query")) && !field.name.ends_with('*')
        })
        .map(|field| {
            json!({ "name": name(field), "in": field.place, "required": field.required,
                "description": field.description, "schema": schema(field) })
        })
        .collect();
    let error = |name: &str| {
        json!({ "description": name, "content": { "application/json": {
            "schema": { "$ref": format!("#/components/schemas/{name}") } } } })
    };
    let mut operation = json!({
        "tags": [plugin],
        "description": endpoint.description,
        "parameters": parameters,
        "responses": { "200": { "description": "The answer." }, "400": error("Errors"), "default": error("Error") },
        "security": if endpoint.auth == "none" { json!([]) } else { json!([{ "token": [] }]) },
    });
    if let Some(body) = body(endpoint) {
        operation["requestBody"] = body;
    }
    operation
}

fn body(endpoint: &Endpoint) -> Option<Value> {
    let of = |places: &[&str]| -> Vec<&Field> {
        let here = |field: &&Field| field.place.as_deref().is_some_and(|place| places.contains(&place));
        endpoint.input.iter().filter(here).collect()
    };
    if let [whole] = of(&["body"]).as_slice() {
        return Some(
            json!({ "required": whole.required, "content": { "*/*": { "schema": schema(whole) } } }),
        );
    }
    let (json, form, files) = (of(&["json"]), of(&["form", "file"]), of(&["file"]));
    let fields = if json.is_empty() { &form } else { &json };
    if fields.is_empty() {
        return None;
    }
    let kinds: &[&str] = match (json.is_empty(), files.is_empty()) {
        (false, _) => &["application/json"],
        (true, false) => &["multipart/form-data"],
        (true, true) => &["application/x-www-form-urlencoded", "multipart/form-data"],
    };
    let named: Vec<&&Field> = fields.iter().filter(|field| !field.name.ends_with('*')).collect();
    let properties: Map<String, Value> =
        named.iter().map(|field| (field.name.clone(), schema(field))).collect();
    let required: Vec<&str> =
        named.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
    let whole = fields.iter().find(|field| field.name == "*");
    let schema = match whole {
        Some(field) if named.is_empty() => schema(field),
        _ => json!({ "type": "object", "properties": properties, "required": required }),
    };
    let content: Map<String, Value> =
        kinds.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": schema }))).collect();
    Some(json!({ "required": fields.iter().any(|field| field.required), "content": content }))
}

/// A field as a JSON schema.
fn schema(field: &Field) -> Value {
    let mut schema = match field.kind.as_str() {
        "integer" => json!({ "type": "integer", "format": "int64" }),
        "numeric" => json!({ "type": ["number", "string"] }),
        "boolean" => json!({ "type": "boolean" }),
        "date" => json!({ "type": "string", "format": "date" }),
        "timestamp" => json!({ "type": "string", "format": "date-time" }),
        "uuid" => json!({ "type": "string", "format": "uuid" }),
        "file" => json!({ "type": "string", "contentMediaType": "application/octet-stream" }),
        "json" => json!({}),
        _ => json!({ "type": "string" }),
    };
    for (rule, bound) in &field.rules {
        let keyword = match rule.as_str() {
            "min" if bound.is_number() => "minimum",
            "max" if bound.is_number() => "maximum",
            "min_length" => "minLength",
            "max_length" => "maxLength",
            "enum" => "enum",
            _ => continue,
        };
        schema[keyword] = bound.clone();
    }
    if field.list {
        schema = json!({ "type": "array", "items": schema });
    }
    if let Some(default) = &field.default {
        schema["default"] = default.clone();
    }
    if !field.description.is_empty() {
        schema["description"] = json!(field.description);
    }
    schema
}
