//! The files of runs in S3: a signed request takes the bytes that it was signed for, and no others.

use aws::artifacts::S3Artifacts;
use domain::{
    artifact::{Manifest, StoredFile},
    id::{AttemptId, ExecutionId},
    ports::{ArtifactReads as _, ArtifactWrites as _, PortError},
    stored::{self, Unknown},
    upload::{LargeUpload, PART_BYTES, SignedRequest, UploadedPart},
};
use reqwest::Response;
use sha2::{Digest as _, Sha256};
use tests::{emulator::dynamodb_endpoint, table, world::client};

use super::records::at;

const ANSWERS: &str = "S3 answers";

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A bucket of its own.
async fn bucket() -> S3Artifacts {
    let endpoint = tokio::task::spawn_blocking(dynamodb_endpoint)
        .await
        .expect("it has an address");
    let config = table::configuration(endpoint);
    let name = format!(
        "mycli-test-{:016x}",
        getrandom::u64().expect("random bytes")
    );
    let settings = aws_sdk_s3::config::Builder::from(&config)
        .force_path_style(true)
        .build();
    let s3 = aws_sdk_s3::Client::from_conf(settings);
    s3.create_bucket()
        .bucket(&name)
        .send()
        .await
        .expect("a bucket can be made");
    S3Artifacts::new(&config, name)
}

fn attempt() -> AttemptId {
    ExecutionId::new(at(1_000), 7).attempt(2)
}

/// Sends bytes as the runner does.
async fn send(request: &SignedRequest, bytes: &[u8]) -> Response {
    let mut call = client().put(&request.url).body(bytes.to_vec());
    let given = request
        .headers
        .iter()
        .filter(|(name, _)| *name != "content-length" && *name != "host");
    for (name, value) in given {
        call = call.header(name, value);
    }
    call.send().await.expect(ANSWERS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emulated_s3_takes_what_was_signed_and_nothing_else() {
    let files = bucket().await;
    let attempt = attempt();
    let content = b"12345";
    let sign = async |bytes: u64, sha256: &str| {
        let signed = files.sign_file(&attempt, 3, Some(7), bytes, sha256);
        signed.await.expect(ANSWERS)
    };
    let request = sign(5, &hash(content)).await;
    let signed = request
        .url
        .split('&')
        .find(|part| part.contains("X-Amz-SignedHeaders"))
        .expect("they are named");
    for header in ["content-length", "x-amz-checksum-sha256"] {
        assert!(
            signed.contains(header) && request.headers.contains_key(header),
            "{request:?} {signed}"
        );
    }
    assert!(request.url.contains("X-Amz-Expires=900"), "it expires");
    for (what, request, bytes) in [
        ("other bytes", request.clone(), &b"54321"[..]),
        ("more bytes", request.clone(), b"123456"),
        ("fewer bytes", request.clone(), b"1234"),
        (
            "another place",
            SignedRequest {
                url: request.url.replace("/3/7?", "/3/8?"),
                ..request.clone()
            },
            content,
        ),
        (
            "another hash",
            SignedRequest {
                headers: sign(5, &hash(b"54321")).await.headers,
                ..request.clone()
            },
            b"54321",
        ),
    ] {
        let answer = send(&request, bytes).await;
        assert!(
            answer.status().is_client_error(),
            "{what}: {}",
            answer.status()
        );
    }
    let answer = send(&request, content).await;
    assert!(
        answer.status().is_success(),
        "{}",
        answer.text().await.expect("a text")
    );
    let url = files
        .download(&attempt, 3, 7, "a \"b\".txt")
        .await
        .expect(ANSWERS);
    let got = client().get(&url).send().await.expect(ANSWERS);
    let disposition = got.headers()["content-disposition"]
        .to_str()
        .expect("text")
        .to_owned();
    assert_eq!(disposition, "attachment; filename*=UTF-8''a%20%22b%22.txt");
    assert_eq!(got.headers()["content-type"], "application/octet-stream");
    assert_eq!(got.bytes().await.expect(ANSWERS), &content[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_read_back_from_emulated_s3() {
    let files = bucket().await;
    let attempt = attempt();
    assert_eq!(files.manifest(&attempt, 0).await.expect(ANSWERS), None);
    let manifest = Manifest {
        files: vec![StoredFile {
            number: 0,
            path: "a%FF/b\n".to_owned().try_into().expect("a path"),
            bytes: 5,
            mode: 0o750,
            sha256: hash(b"12345"),
        }],
    };
    let text = stored::write_text(&manifest, &Unknown::default()).expect("a form");
    let sum = hash(text.as_bytes());
    let request = files.sign_file(&attempt, 0, None, text.len() as u64, &sum);
    let request = request.await.expect(ANSWERS);
    assert!(send(&request, text.as_bytes()).await.status().is_success());
    assert_eq!(
        files.manifest(&attempt, 0).await.expect(ANSWERS),
        Some(manifest)
    );
    assert_eq!(files.manifest(&attempt, 1).await.expect(ANSWERS), None);
    // A broken manifest is told apart from a missing one.
    let request = files
        .sign_file(&attempt, 1, None, 5, &hash(b"12345"))
        .await
        .expect(ANSWERS);
    assert!(send(&request, b"12345").await.status().is_success());
    let read = files.manifest(&attempt, 1).await;
    assert!(matches!(read, Err(PortError::Corrupt(_))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_parts_is_put_together_once_in_emulated_s3() {
    let files = bucket().await;
    let attempt = attempt();
    let content: Vec<u8> = (0..PART_BYTES + 9).map(|at| (at % 253) as u8).collect();
    let upload = LargeUpload {
        bytes: content.len() as u64,
        id: files.begin_large(&attempt, 4).await.expect(ANSWERS),
    };
    let mut parts = Vec::new();
    for (number, part) in (1..).zip(content.chunks(usize::try_from(PART_BYTES).expect("it fits"))) {
        let request = files
            .sign_part(&attempt, 4, &upload, number, &hash(part))
            .await
            .expect(ANSWERS);
        let other: Vec<u8> = part.iter().map(|byte| !byte).collect();
        assert!(
            send(&request, &other).await.status().is_client_error(),
            "other bytes"
        );
        let answer = send(&request, part).await;
        assert!(answer.status().is_success(), "{}", answer.status());
        parts.push(UploadedPart {
            etag: answer.headers()["etag"].to_str().expect("text").to_owned(),
            sha256: hash(part),
        });
    }
    let wrong: Vec<_> = parts.iter().rev().cloned().collect();
    let refused = files.complete_large(&attempt, 4, &upload, &wrong).await;
    assert!(
        matches!(refused, Err(PortError::Rejected(_))),
        "{refused:?}"
    );
    files
        .complete_large(&attempt, 4, &upload, &parts)
        .await
        .expect("they are the parts");
    files
        .complete_large(&attempt, 4, &upload, &parts)
        .await
        .expect("an answer may be lost");
    let url = files.download(&attempt, 4, 0, "x").await.expect(ANSWERS);
    let got = client().get(&url).send().await.expect(ANSWERS);
    assert!(got.bytes().await.expect(ANSWERS) == content[..]);
}
