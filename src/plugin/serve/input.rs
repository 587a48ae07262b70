//! The input of a request, field by field as the endpoint declares it: all that is wrong is told at once, by the names of the fields.

use std::convert::Infallible;

use serde_json::{Map, Value, json};
use warp::http::{HeaderMap, StatusCode, header};
use warp::hyper::body::Bytes;

use super::reply::Refusal;
use crate::plugin::manifest::{Endpoint, Field};

/// What came in.
pub(super) struct Raw<'r> {
    /// Parameters of the path.
    pub(super) path: &'r [(String, String)],
    /// The query as it was written.
    pub(super) query: &'r str,
    /// The headers.
    pub(super) headers: &'r HeaderMap,
    /// The whole body.
    pub(super) body: Bytes,
}

/// What it says.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The fields.
    pub(super) fields: Map<String, Value>,
    /// The bytes of files, in the order of their index.
    pub(super) files: Vec<Vec<u8>>,
}

type Pairs = Vec<(String, String)>;

/// A file as it came in.
struct Upload {
    field: String,
    filename: String,
    content_type: String,
    bytes: Bytes,
}

/// The body, by what it turned out to be.
#[derive(Default)]
struct Body {
    whole: Option<String>,
    json: Option<Value>,
    form: Pairs,
    files: Vec<Upload>,
}

/// Reads and checks the input.
///
/// # Errors
/// 400 with all faulty fields, 415 for a body of another kind.
pub(super) async fn read(endpoint: &Endpoint, raw: Raw<'_>) -> Result<Input, Refusal> {
    let body = read_body(endpoint, raw.headers, raw.body).await?;
    let query = pairs(raw.query.as_bytes());
    let (mut input, mut errors) = (Input::default(), Map::new());
    for field in &endpoint.input {
        let value = match field.place.as_deref() {
            Some("path") => from_pairs(field, raw.path),
            Some("query") => from_pairs(field, &query),
            Some("body") => field.read_texts(&body.whole.as_deref().into_iter().collect::<Vec<_>>()),
            Some("form") => from_pairs(field, &body.form),
            Some("file") => from_files(field, &body.files, &mut input.files),
            _ => from_json(field, body.json.as_ref()),
        };
        match value {
            Ok(value) => drop(input.fields.insert(field.name.clone(), value)),
            Err(problem) => drop(errors.insert(field.name.clone(), Value::from(problem))),
        }
    }
    if errors.is_empty() {
        return Ok(input);
    }
    Err(Refusal { body: Some(json!({ "errors": errors })), ..Refusal::new(StatusCode::BAD_REQUEST, "") })
}

async fn read_body(endpoint: &Endpoint, headers: &HeaderMap, bytes: Bytes) -> Result<Body, Refusal> {
    let mut body = Body::default();
    if bytes.is_empty() {
        return Ok(body);
    }
    let takes = |place| endpoint.input.iter().any(|field| field.place.as_deref() == Some(place));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let wrong =
        |problem: &str| Refusal::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {problem}"));
    if takes("body") {
        body.whole = Some(String::from_utf8_lossy(&bytes).into_owned());
    } else if takes("json") && (essence == "application/json" || essence.ends_with("+json")) {
        body.json = Some(serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?);
    } else if takes("form") && essence == "application/x-www-form-urlencoded" {
        body.form = pairs(&bytes);
    } else if (takes("form") || takes("file")) && essence == "multipart/form-data" {
        let boundary = multer::parse_boundary(kind).map_err(|error| wrong(&error.to_string()))?;
        read_parts(boundary, bytes, &mut body).await.map_err(|error| wrong(&error.to_string()))?;
    } else {
        let wanted = match (takes("json"), takes("file"), takes("form")) {
            (true, ..) => "application/json",
            (_, true, _) => "multipart/form-data",
            (.., true) => "application/x-www-form-urlencoded or multipart/form-data",
            _ => "no body",
        };
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("what is taken here: {wanted}"),
        ));
    }
    Ok(body)
}

async fn read_parts(boundary: String, bytes: Bytes, body: &mut Body) -> multer::Result<()> {
    let whole = futures_util::stream::once(async move { Ok::<_, Infallible>(bytes) });
    let mut parts = multer::Multipart::new(whole, boundary);
    while let Some(part) = parts.next_field().await? {
        let field = part.name().unwrap_or_default().to_owned();
        match part.file_name().map(str::to_owned) {
            Some(filename) => {
                let content_type = part.content_type().map_or("application/octet-stream", |it| it.as_ref());
                let content_type = content_type.to_owned();
                let bytes = part.bytes().await?;
                // A browser sends an empty one for a file that nobody chose.
                if !filename.is_empty() || !bytes.is_empty() {
                    body.files.push(Upload { field, filename, content_type, bytes });
                }
            }
            None => body.form.push((field, part.text().await?)),
        }
    }
    Ok(())
}

fn pairs(text: &[u8]) -> Pairs {
    url::form_urlencoded::parse(text).map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

/// A field; with a name that ends in * all that begin so, as an object.
fn from_pairs(field: &Field, pairs: &[(String, String)]) -> Result<Value, String> {
    let texts = |name: &str| -> Vec<&str> {
        pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    };
    let Some(prefix) = field.name.strip_suffix('*') else {
        return field.read_texts(&texts(&field.name));
    };
    let mut object = Map::new();
    for (key, _) in pairs.iter().filter(|(key, _)| key.starts_with(prefix)) {
        if !object.contains_key(key) {
            let value = field.read_texts(&texts(key)).map_err(|problem| format!("{key}: {problem}"))?;
            object.insert(key.clone(), value);
        }
    }
    if object.is_empty() { field.absent() } else { Ok(Value::Object(object)) }
}

fn from_json(field: &Field, document: Option<&Value>) -> Result<Value, String> {
    let Some(prefix) = field.name.strip_suffix('*') else {
        return match document {
            Some(Value::Object(object)) => field.read_json(object.get(&field.name)),
            Some(_) => Err("the body is no object".to_owned()),
            None => field.absent(),
        };
    };
    match document {
        Some(document) if prefix.is_empty() => field.read_json(Some(document)),
        Some(Value::Object(object)) => {
            let mut found = Map::new();
            for (key, value) in object.iter().filter(|(key, _)| key.starts_with(prefix)) {
                let value = field.read_json(Some(value)).map_err(|problem| format!("{key}: {problem}"))?;
                found.insert(key.clone(), value);
            }
            if found.is_empty() { field.absent() } else { Ok(Value::Object(found)) }
        }
        Some(_) => Err("the body is no object".to_owned()),
        None => field.absent(),
    }
}

fn from_files(field: &Field, uploads: &[Upload], files: &mut Vec<Vec<u8>>) -> Result<Value, String> {
    let mut taken = Vec::new();
    let most = field.rules.get("max_length").and_then(Value::as_u64).unwrap_or(u64::MAX);
    for upload in uploads.iter().filter(|upload| upload.field == field.name) {
        if upload.bytes.len() as u64 > most {
            return Err(format!("{:?} is longer than {most} bytes", upload.filename));
        }
        files.push(upload.bytes.to_vec());
        taken.push(json!({ "filename": upload.filename, "content_type": upload.content_type,
            "size": upload.bytes.len(), "index": files.len() }));
    }
    match (taken.len(), field.list) {
        (0, _) => field.absent(),
        (_, true) => Ok(Value::Array(taken)),
        (1, false) => Ok(taken.remove(0)),
        _ => Err("one file is taken, not several".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(json: Value) -> Field {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn texts_become_values_of_their_types() {
        let read = |kind: &str, text: &str| {
            field(json!({ "name": "x", "type": kind, "required": false })).read_texts(&[text])
        };
        assert_eq!(read("integer", " 7 "), Ok(json!(7)));
        assert_eq!(read("boolean", "on"), Ok(json!(true)));
        assert_eq!(read("numeric", "0.10"), Ok(json!("0.10")), "no digit is lost");
        assert_eq!(read("date", ""), Ok(Value::Null), "browsers send an empty text for nothing");
        assert_eq!(read("text", ""), Ok(json!("")));
        assert_eq!(read("integer", "seven"), Err("\"seven\" is no integer".to_owned()));
        assert!(read("date", "2026-02-30").is_err());
    }

    #[test]
    fn a_star_takes_all_that_begin_so() {
        let lines =
            field(json!({ "name": "quantity_*", "in": "form", "type": "integer", "required": false }));
        let pairs = pairs(b"quantity_3=2&quantity_10=1&other=x");
        assert_eq!(from_pairs(&lines, &pairs), Ok(json!({ "quantity_3": 2, "quantity_10": 1 })));
        assert_eq!(from_pairs(&lines, &[]), Ok(Value::Null));
        let whole = field(json!({ "name": "*", "in": "json", "type": "json", "required": false }));
        assert_eq!(from_json(&whole, Some(&json!([1]))), Ok(json!([1])));
    }
}
