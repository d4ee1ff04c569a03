//! The JSON Schema of the status document, made from the types that write it: `isatapctl status --schema`, `doc/status.schema.json`.
//!
//! `schema_version` names it. A field that is added leaves the version as it is, so whoever reads a status must ignore what it does
//! not know; the schema allows it. A field that goes away, gets another name, type, unit or meaning makes a new version.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::status::{SCHEMA_VERSION, Status};

/// The schema, of draft 2020-12.
pub fn status() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<Status>().to_value();
    schema["$id"] = json!(format!("urn:isatapd:status:{SCHEMA_VERSION}"));
    schema["title"] = json!("The status of isatapd: isatapctl status --json, /api/v1/status");
    schema["properties"]["schema_version"]["const"] = json!(SCHEMA_VERSION);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run with `UPDATE_SCHEMA=1` after a change of the status document.
    #[test]
    fn the_published_schema_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../doc/status.schema.json");
        let text = serde_json::to_string_pretty(&status()).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap();
        assert_eq!(published, text, "{path}: run this test with UPDATE_SCHEMA=1");
    }

    #[test]
    fn every_field_is_described_and_the_version_is_fixed() {
        let schema = status();
        let mut objects = vec![&schema];
        objects.extend(schema["$defs"].as_object().unwrap().values());
        for object in objects {
            for (name, field) in object["properties"].as_object().unwrap() {
                assert!(field["description"].is_string(), "{name}: {field}");
            }
        }
        assert_eq!(schema["properties"]["schema_version"]["const"], SCHEMA_VERSION);
        let required = schema["required"].as_array().unwrap();
        assert!(
            required.contains(&json!("kernel_drops")),
            "a daemon writes every field: {required:?}"
        );
    }
}
