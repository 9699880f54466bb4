//! What a site has of its own: a proxy that everything passes, and servers that ask who comes.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use exeat_tests::Lab;
use exeat_tests::authority::{Authority, Fault};
use exeat_tests::lab::{WORLD, WORLD_OTHER};
use exeat_tests::upstream::{Manner, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::place::{curl, exchange, policy};

const NAME: &str = "api.lab.example";

/// A proxy that knows CONNECT and remembers the heads that it got.
struct Proxy {
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `behind`: what stands for the upstream; `answer`: the status line of each answer.
fn proxy(listener: TcpListener, behind: fn(u16) -> Option<SocketAddr>) -> Proxy {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&heads);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&theirs), behind));
        }
    });
    Proxy { heads, task }
}

async fn serve(
    mut stream: TcpStream,
    heads: Arc<Mutex<Vec<String>>>,
    behind: fn(u16) -> Option<SocketAddr>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().unwrap().push(head);
    let port = target.rsplit(':').next().unwrap().parse().unwrap();
    let Some(address) = behind(port) else {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(refusal).await.unwrap_or_default();
    };
    let Ok(mut upstream) = TcpStream::connect(address).await else {
        return;
    };
    let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
    if stream.write_all(established).await.is_ok() {
        // Ends with either side.
        let _copied = copy_bidirectional(&mut stream, &mut upstream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_passes_the_sites_proxy() {
    let lab = Lab::new().unwrap();
    let address = SocketAddr::new(WORLD, 443);
    // The proxy runs in the test's own namespace and hands on to a server there: what counts is what it is asked.
    let leaf = lab.authority.leaf(&[NAME], Fault::Sound).unwrap();
    let config = leaf.server(&["h2", "http/1.1"], None).unwrap();
    let here = TcpListener::bind("127.0.0.1:0").await.unwrap();
    PORT.set(here.local_addr().unwrap()).unwrap();
    let server = Upstream::serve(here, Some(config), Manner::Http).unwrap();
    let direct = lab.https(&[NAME], address).unwrap();
    let listener = lab
        .outside
        .listen(SocketAddr::new(WORLD_OTHER, 3128))
        .unwrap();
    let proxy = proxy(listener, |port| PORT.get().copied().filter(|_| port == 443));
    let password = lab.directory().join("password");
    fs::write(&password, "open sesame\n").unwrap();
    let settings = format!(
        "upstream_proxy: {{ url: \"http://{WORLD_OTHER}:3128\", username: exeat, password_file: {} }}",
        password.display()
    );
    let entry = "{ host: api.lab.example, ports: [443, 8443] }";
    let daemon = lab.daemon_with(&policy(&[entry]), &settings).await.unwrap();
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://{NAME}/echo?{version}");
        let told = curl(&lab, &[version, &url]).await;
        assert_eq!(told.status, 200, "{told:?} {}", daemon.log());
    }
    assert_eq!((server.seen().len(), direct.connections()), (2, 0));
    let heads = proxy.heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 2, "{heads:?}");
    for head in heads {
        assert!(
            head.starts_with("CONNECT api.lab.example:443 HTTP/1.1\r\n"),
            "{head}"
        );
        let head = head.to_ascii_lowercase();
        // exeat:open sesame
        assert!(
            head.contains("proxy-authorization: basic zxhlyxq6b3blbibzzxnhbwu="),
            "{head}"
        );
    }
    // The proxy itself refuses.
    let told = curl(&lab, &["https://api.lab.example:8443/echo?refused"]).await;
    assert_eq!(
        (told.status, told.code().as_str()),
        (502, "upstream_connect"),
        "{told:?}"
    );
    let record = exchange(&daemon, "/echo?refused").await;
    assert!(
        record["outcome"]["error"].as_str().unwrap().contains("407"),
        "{record}"
    );
    let text = daemon
        .audit()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect::<String>()
        + &daemon.log();
    assert!(
        !text.contains("sesame") && !text.contains("ZXhlYXQ6"),
        "the password is told"
    );
}

/// Where the server behind the proxy listens.
static PORT: std::sync::OnceLock<SocketAddr> = std::sync::OnceLock::new();

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_ask_who_comes() {
    let lab = Lab::new().unwrap();
    let staff = Authority::new("staff").unwrap();
    let leaf = lab
        .authority
        .leaf(&[NAME, "other.lab.example"], Fault::Sound)
        .unwrap();
    let config = leaf.server(&["http/1.1"], Some(&staff)).unwrap();
    let listener = lab.outside.listen(SocketAddr::new(WORLD, 443)).unwrap();
    let server = Upstream::serve(listener, Some(config), Manner::Http).unwrap();
    lab.dns.points(NAME, &[WORLD]);
    lab.dns.points("other.lab.example", &[WORLD]);
    let own = staff.leaf(&["exeat"], Fault::Sound).unwrap();
    own.write(lab.directory(), "client").unwrap();
    let directory = lab.directory().display();
    let settings = format!(
        "tls: {{ extra_roots: [{directory}/world-ca.pem], client_certificates: \
         [{{ host: {NAME}, cert: {directory}/client.pem, key: {directory}/client.key }}] }}"
    );
    let entries = ["{ host: api.lab.example }", "{ host: other.lab.example }"];
    let daemon = lab.daemon_with(&policy(&entries), &settings).await.unwrap();
    let told = curl(&lab, &["https://api.lab.example/echo"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    // The certificate is for the host that it was configured for, and for no other.
    let told = curl(&lab, &["https://other.lab.example/echo?other"]).await;
    assert_eq!(told.status, 502, "{told:?}");
    assert!(
        ["upstream_tls", "upstream_reset"].contains(&told.code().as_str()),
        "{told:?}"
    );
    exchange(&daemon, "/echo?other").await;
    assert_eq!(server.seen().len(), 1);
}
