//! Values as people and browsers write them: texts, which a field's type turns into JSON.

use serde_json::Value;

use super::Field;

impl Field {
    /// The value that a text stands for; it is of the type and keeps the rules. Numbers with fractions stay texts, so that no digit is lost.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_text(&self, text: &str) -> Result<Value, String> {
        let trimmed = text.trim();
        let value = match self.kind.as_str() {
            "integer" => trimmed.parse::<i64>().map(Value::from).ok(),
            "boolean" => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "1" | "on" | "yes" => Some(Value::Bool(true)),
                "false" | "0" | "off" | "no" => Some(Value::Bool(false)),
                _ => None,
            },
            "json" => serde_json::from_str(text).ok(),
            "numeric" | "date" | "timestamp" | "uuid" => Some(Value::from(trimmed)),
            _ => Some(Value::from(text)),
        };
        let value = value.ok_or_else(|| format!("{text:?} is no {}", self.kind))?;
        self.judge(&value)?;
        Ok(value)
    }

    /// What all given texts stand for; null for none of them. Of what is no text an empty one is none, as browsers send it.
    ///
    /// # Errors
    /// What is wrong with one, or that there must be one.
    pub fn read_texts(&self, texts: &[&str]) -> Result<Value, String> {
        let given: Vec<&&str> = texts.iter().filter(|text| self.kind == "text" || !text.is_empty()).collect();
        match (given.as_slice(), self.list) {
            ([], _) => self.absent(),
            (many, true) => many.iter().map(|text| self.read_text(text)).collect(),
            ([.., last], false) => self.read_text(last),
        }
    }

    /// What a JSON value stands for: a null is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_json(&self, value: Option<&Value>) -> Result<Value, String> {
        match value {
            None | Some(Value::Null) => self.absent(),
            Some(Value::Array(list)) if self.list => {
                list.iter().try_for_each(|one| self.judge(one)).map(|()| Value::Array(list.clone()))
            }
            Some(_) if self.list => Err("a list is needed here".to_owned()),
            Some(value) => self.judge(value).map(|()| value.clone()),
        }
    }

    /// The value when none is given.
    ///
    /// # Errors
    /// That one must be given.
    pub fn absent(&self) -> Result<Value, String> {
        match &self.default {
            Some(default) => Ok(default.clone()),
            None if self.required => Err("is required".to_owned()),
            None => Ok(Value::Null),
        }
    }
}
