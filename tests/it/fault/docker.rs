//! The engine posing as one that is not Podman: its log is then read as Docker's is.

use std::path::PathBuf;

use serde_json::json;
use tests::engine::{Engine, EngineProxy, Passed};

/// Answers the version request as Docker does and passes everything else on to the engine.
pub(super) fn docker_at(path: PathBuf) -> EngineProxy {
    EngineProxy::at(path, Engine::shared().socket(), |request| {
        let line = request.head.lines().next().unwrap_or_default();
        match line.contains("/version ") {
            true => {
                let version = json!({"Version": "20.10.0", "ApiVersion": "1.41"});
                Passed::Answered(version.to_string())
            }
            false => Passed::On(request.body.clone()),
        }
    })
}
