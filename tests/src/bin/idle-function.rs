//! A Lambda function that answers every event with an empty history. It speaks the Lambda runtime
//! API directly and uses no other crate. It is for deployment tests, which only check that the
//! functions start and answer.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

const ANSWER: &str = r#"{"statusCode":200,"headers":{"content-type":"application/json"},"body":"{\"executions\":[],\"next_cursor\":null}"}"#;

fn main() -> io::Result<()> {
    let address = env::var("AWS_LAMBDA_RUNTIME_API").map_err(io::Error::other)?;
    loop {
        let id = ask(&address, "GET", "next", "")?;
        ask(&address, "POST", &format!("{id}/response"), ANSWER)?;
    }
}

/// Returns the invocation id from the response's headers.
fn ask(address: &str, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "{method} /2018-06-01/runtime/invocation/{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let (mut reader, mut id) = (BufReader::new(stream), String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("lambda-runtime-aws-request-id")
        {
            value.trim().clone_into(&mut id);
        }
    }
    // The rest is the event, which nothing reads. The server may close the connection as it likes.
    let _rest = reader.read_to_end(&mut Vec::new());
    Ok(id)
}
