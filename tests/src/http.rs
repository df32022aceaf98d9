//! A GET by hand, for `/healthz` and `/metrics`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Status code and body.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.map_err(io::Error::other)??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(answer.clone()))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.ok_or_else(|| io::Error::other(head.to_owned()))?, body.to_owned()))
}

/// Value of one series of Prometheus' text format: all of `labels` must stand in its line. 0 if there is none.
pub fn series(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']))
        .filter(|line| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\""))))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::series;

    #[test]
    fn a_series_is_the_sum_of_its_matching_lines() {
        let text = "# HELP x_total x\nx_total{reason=\"a\",source=\"p\"} 2\nx_total{reason=\"a\",source=\"q\"} 3\n\
                    x_total{reason=\"b\",source=\"q\"} 5\nx_total_other 9\n";
        assert!((series(text, "x_total", &[("reason", "a")]) - 5.0).abs() < 1e-9);
        assert!((series(text, "x_total", &[("reason", "b"), ("source", "p")])).abs() < 1e-9);
    }
}
