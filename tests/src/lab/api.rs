//! Sluice's HTTP API, asked by curl from the namespace in which control listens.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::command::{in_netns, run_with_input};
use super::error::{LabError, Result};

/// A client of the API.
#[derive(Clone, Debug)]
pub struct Api {
    netns: String,
    base: String,
}

impl Api {
    /// The API of a control that listens on `listen` inside `netns`.
    pub fn new(netns: String, listen: &str) -> Self {
        Api { netns, base: format!("http://{listen}") }
    }

    /// Its address, as `http://127.0.0.1:9600`.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// `GET path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = self.accepted("GET", path, None)?;
        serde_json::from_str(&body).map_err(|error| LabError::Api {
            method: "GET".to_owned(),
            path: path.to_owned(),
            status: 200,
            body: format!("{error}: {body}"),
        })
    }

    /// A request that changes something; any status but 2xx is an error.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Result<String> {
        self.accepted(method, path, Some(body))
    }

    /// Any request; its status and body. Status 0 stands for no answer at all.
    pub fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<(u16, String)> {
        let url = format!("{}{path}", self.base);
        let mut argv = vec!["curl", "-sS", "-m", "5", "-X", method, "-w", "\n%{http_code}"];
        argv.extend(["-H", "sluice-client: lab"]);
        if body.is_some() {
            argv.extend(["-H", "content-type: application/json", "--data-binary", "@-"]);
        }
        argv.push(&url);
        let output = run_with_input(&in_netns(&self.netns, &argv), body.unwrap_or(""))?;
        let (body, status) = output.rsplit_once('\n').unwrap_or(("", &output));
        Ok((status.trim().parse().unwrap_or(0), body.to_owned()))
    }

    fn accepted(&self, method: &str, path: &str, body: Option<&Value>) -> Result<String> {
        let text = body.map(Value::to_string);
        let (status, body) = self.request(method, path, text.as_deref())?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        Err(LabError::Api { method: method.to_owned(), path: path.to_owned(), status, body })
    }
}
