//! Names as real clients ask for them, and answers that are not to be trusted.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::dns::Answer;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::{LAN, METADATA, WORLD, WORLD_OTHER, WORLD_V6};
use serde_json::{Value, json};

use crate::place::{curl, managed, policy};

const NAME: &str = "api.lab.example";

/// A query by hand: type, over TCP or not; prints the code, the number of answers and their data.
const ASK: &str = r#"import socket,struct,sys,json
def ask(name,kind,tcp,server,pieces=None):
  q=struct.pack(">HHHHHH",0x1234,0x100,1,0,0,0)+b"".join(bytes([len(l)])+l.encode() for l in name.split(".") if l)+b"\0"+struct.pack(">HH",kind,1)
  try:
    if tcp:
      s=socket.create_connection((server,53),5); f=struct.pack(">H",len(q))+q
      if pieces:
        for i in range(len(f)): s.sendall(f[i:i+1])
      else: s.sendall(f+f)
      n=struct.unpack(">H",s.recv(2))[0]; a=s.recv(n)
    else:
      s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); s.sendto(q,(server,53)); a,peer=s.recvfrom(4096)
      if peer[0]!=server: return "from "+peer[0]
    return [a[3]&15,struct.unpack(">H",a[6:8])[0]]
  except Exception as e: return type(e).__name__
print(json.dumps([ask(*j) for j in json.loads(sys.argv[1])]))"#;

async fn ask(lab: &Lab, jobs: Value) -> Value {
    let python = Fixtures::find().unwrap().python(2);
    let program = [
        python.as_os_str(),
        "-c".as_ref(),
        ASK.as_ref(),
        jobs.to_string().as_ref(),
    ]
    .map(ToOwned::to_owned);
    managed(lab, &program).await.json().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_resolvers_are_answered() {
    let lab = Lab::new().unwrap();
    lab.dns.points(NAME, &[WORLD, WORLD_V6]);
    lab.dns
        .set("www.lab.example", Answer::Alias("a.cdn.example".into()));
    lab.dns
        .set("a.cdn.example", Answer::Alias("b.cdn.example".into()));
    lab.dns.points("b.cdn.example", &[WORLD_OTHER]);
    let server = lab
        .https(&["www.lab.example"], SocketAddr::new(WORLD_OTHER, 443))
        .unwrap();
    lab.dns
        .set("www.lab.example", Answer::Alias("a.cdn.example".into()));
    let daemon = lab
        .daemon(&policy(&[
            "{ host: api.lab.example }",
            "{ host: www.lab.example }",
        ]))
        .await
        .unwrap();
    let fixtures = Fixtures::find().unwrap();
    let cares = "require('dns').promises.resolve4(process.argv[1]).then(a=>console.log(a[0]),e=>console.log(e.code))";
    let python = "import socket,sys\ntry: print(sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1],443)}))\nexcept OSError as e: print(e)";
    let (node, snake) = (fixtures.node(22), fixtures.python(2));
    let (node, snake) = (node.to_str().unwrap(), snake.to_str().unwrap());
    let world = WORLD.to_string();
    let both = format!("['{WORLD_V6}', '{WORLD}']");
    for (program, allowed, refused) in [
        (vec!["getent", "ahostsv4"], world.as_str(), ""),
        (vec!["getent", "hosts"], "2606:2800:21f:cb07::14", ""),
        (vec![node, "-e", cares], world.as_str(), "ENOTFOUND"),
        (
            vec![snake, "-c", python],
            both.as_str(),
            "Name or service not known",
        ),
    ] {
        let done = managed(&lab, &[&program[..], &[NAME]].concat()).await;
        let plain = done
            .stdout
            .replace("['93.184.215.14', '2606:2800:21f:cb07::14']", &both);
        assert!(
            plain.contains(allowed),
            "{program:?}: {} {}",
            done.stdout,
            done.stderr
        );
        let done = managed(&lab, &[&program[..], &["evil.lab.example"]].concat()).await;
        assert!(
            done.stdout.contains(refused),
            "{program:?}: {} {}",
            done.stdout,
            done.stderr
        );
        assert!(!done.stdout.contains(&world));
    }
    // By any server's address, TCP or UDP, whole or in pieces; other types are empty, and nobody is asked.
    let got = ask(
        &lab,
        json!([
            [NAME, 1, false, "93.184.215.53"],
            [NAME, 28, false, "8.8.8.8"],
            [NAME, 1, true, "9.9.9.9"],
            [NAME, 1, true, "93.184.215.53", true],
            [NAME, 16, false, "8.8.8.8"],
            [NAME, 65, true, "8.8.8.8"],
            [NAME, 255, false, "8.8.8.8"],
            [NAME, 10, false, "8.8.8.8"],
            ["evil.lab.example", 1, true, "8.8.8.8"],
            ["secret-data.evil.lab.example", 16, false, "8.8.8.8"],
            ["API.LAB.example", 1, false, "8.8.8.8"],
        ]),
    )
    .await;
    assert_eq!(
        got,
        json!([
            [0, 1],
            [0, 1],
            [0, 1],
            [0, 1],
            [0, 0],
            [0, 0],
            [0, 0],
            [0, 0],
            [3, 0],
            [3, 0],
            [0, 1]
        ])
    );
    let asked = lab.dns.asked();
    assert!(
        asked
            .iter()
            .all(|question| ["A", "AAAA"].contains(&question.kind.as_str())),
        "{asked:?}"
    );
    assert!(
        asked.iter().all(|question| !question.name.contains("evil")),
        "{asked:?}"
    );

    // An alias chain is followed; the name that was asked for stays the name.
    let told = curl(&lab, &["https://www.lab.example/echo"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(
        server.seen()[0].server_name.as_deref(),
        Some("www.lab.example")
    );
    let record = daemon
        .record("the aliases", |record| {
            record["dns"]["name"] == "www.lab.example"
        })
        .await
        .unwrap();
    assert_eq!(record["decision"]["effect"], "allow", "{record}");
    // The alias itself was not asked for, so it is nobody's name.
    let told = curl(&lab, &["https://a.cdn.example/echo"]).await;
    assert_eq!(told.exit, 6, "{told:?}");
}

/// Sends messages as they are, each over UDP and TCP: pairs of bytes in hexadecimal and whether an answer is expected;
/// then, over UDP, a well-formed query by the same socket. Prints for each message what the query got and what both ways
/// got: the answer's code and how many answers it has, if it has the message's id and is marked as an answer. Datagrams
/// that no answer is expected to are asked about at the very end.
const SEND: &str = r#"import json,socket,struct,sys
jobs,good=json.loads(sys.argv[1]),bytes.fromhex(sys.argv[2])
def code(q,a): return [a[3]&15,struct.unpack(">H",a[6:8])[0]] if a[:2]==q[:2] and a[2]&128 else a.hex()
def tcp(q):
  s=socket.create_connection(("8.8.8.8",53),5); s.settimeout(8); s.sendall(struct.pack(">H",len(q))+q)
  n=s.recv(2)
  return code(q,s.recv(struct.unpack(">H",n)[0])) if n else "closed"
def udp(q,answered):
  s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(8); s.connect(("8.8.8.8",53))
  s.send(q); got=code(q,s.recv(4096)) if answered else s
  s.send(good); return [code(good,s.recv(4096)),got]
def late(s):
  if isinstance(s,list): return s
  s.setblocking(False)
  try: return s.recv(4096).hex()
  except BlockingIOError: return "silence"
def attempt(way,*given):
  try: return way(*given)
  except Exception as e: return [repr(e)]*2
done=[attempt(udp,bytes.fromhex(q),answered)+[attempt(tcp,bytes.fromhex(q))] for q,answered in jobs]
print(json.dumps([[fine,late(one),two] for fine,one,two in done]))"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_queries_are_refused_and_the_next_is_answered() {
    let lab = Lab::new().unwrap();
    lab.dns.points(NAME, &[WORLD]);
    let daemon = lab
        .daemon(&policy(&["{ host: api.lab.example }"]))
        .await
        .unwrap();
    let header = |id: u16, flags: u8, questions: u16| {
        format!("{id:04x}{flags:02x}00{questions:04x}000000000000")
    };
    let name = "03617069036c6162076578616d706c6500";
    let good = header(0x0bad, 1, 1) + name + "00010001";
    // Each its own id: by it the kernel knows whose a datagram is.
    let messages = [
        // Too short to be a header, or marked as an answer: nothing to answer.
        ("0001010000".to_owned(), None),
        (header(2, 0x81, 1) + name + "00010001", None),
        // A count without its question, and one too many.
        (header(3, 1, 1), Some(1)),
        (header(4, 1, 2) + name + "00010001", Some(1)),
        // A name that points to itself, and two that point to each other.
        (header(5, 1, 1) + "c00c" + "00010001", Some(1)),
        (header(6, 1, 1) + "c00ec00c" + "00010001", Some(1)),
        // A label that goes beyond the end, and something behind it.
        (header(7, 1, 1) + "3f61", Some(1)),
        (header(8, 1, 1) + name + "00010001" + "ff", Some(1)),
        // Another operation, another class.
        (header(9, 0x11, 1) + name + "00010001", Some(4)),
        (header(10, 1, 1) + name + "00010003", Some(5)),
    ];
    let sent: Vec<Value> = messages
        .iter()
        .map(|(bytes, code)| json!([bytes, code.is_some()]))
        .collect();
    let python = Fixtures::find().unwrap().python(2);
    let (python, sent) = (python.to_str().unwrap(), json!(sent).to_string());
    let done = managed(&lab, &[python, "-c", SEND, &sent, &good]).await;
    let want: Vec<Value> = messages
        .iter()
        .map(|(_, code)| match code {
            Some(code) => json!([[0, 1], [code, 0], [code, 0]]),
            None => json!([[0, 1], "silence", "closed"]),
        })
        .collect();
    assert_eq!(done.json().unwrap(), json!(want), "{done:?}");

    // Each is recorded, twice: once a way.
    let broken = |record: &Value| {
        record["kind"] == "dns" && record["decision"]["reason"] == "a malformed query"
    };
    let records = exeat_tests::wait::wait_for("their records", crate::place::LIMIT, async || {
        let mut records = daemon.audit().ok()?;
        records.retain(broken);
        (records.len() >= 2 * messages.len()).then_some(records)
    })
    .await
    .unwrap();
    assert_eq!(records.len(), 2 * messages.len(), "{records:?}");
    for record in &records {
        assert_eq!(record["decision"]["effect"], "deny", "{record}");
        assert_eq!(record["outcome"]["status"], "refused", "{record}");
        assert_eq!(record["workload"]["name"], "demo", "{record}");
    }
    let code = |wanted: &str| {
        let of = |record: &&Value| record["dns"]["code"] == wanted;
        records.iter().filter(of).count()
    };
    assert_eq!(
        [code("FORMERR"), code("NOTIMP"), code("REFUSED")],
        [12, 2, 2],
        "{records:?}"
    );
    // And the next one is answered, over either.
    let got = ask(
        &lab,
        json!([[NAME, 1, false, "8.8.8.8"], [NAME, 1, true, "8.8.8.8"]]),
    )
    .await;
    assert_eq!(got, json!([[0, 1], [0, 1]]));
    let asked = lab.dns.asked();
    assert!(
        asked.iter().all(|question| question.name == NAME),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_point_inwards() {
    let lab = Lab::new().unwrap();
    let name = "rebind.lab.example";
    let world = lab
        .https(&[name, "wiki.lab.example"], SocketAddr::new(WORLD, 443))
        .unwrap();
    let lan = lab
        .https(&["wiki.lab.example"], SocketAddr::new(LAN, 443))
        .unwrap();
    let metadata = lab.https(&[name], SocketAddr::new(METADATA, 443)).unwrap();
    lab.dns.points("inside.lab.example", &[LAN]);
    lab.dns.points(name, &[WORLD]);
    let daemon = lab
        .daemon(&policy(&[
            "{ host: rebind.lab.example }",
            "{ host: inside.lab.example }",
            "{ host: wiki.lab.example, private: true }",
        ]))
        .await
        .unwrap();
    let told = curl(&lab, &["https://wiki.lab.example/echo"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!((lan.seen().len(), world.seen().len()), (1, 0));
    let told = curl(&lab, &["https://inside.lab.example/echo"]).await;
    assert_eq!(told.exit, 6, "{told:?}");
    daemon
        .record("an address of a class that is not allowed", |record| {
            record["dns"]["name"] == "inside.lab.example"
                && record["decision"]["effect"] == "deny"
                && record["decision"]["reason"]
                    .as_str()
                    .is_some_and(|why| why.contains("10.78.0.5"))
        })
        .await
        .unwrap();

    // A name that is allowed, pointed at the machine's secrets: no address is given, and whoever dials it all the same,
    // with the name that its server would answer to, does not arrive.
    lab.dns.points(name, &[METADATA]);
    let pinned = format!("{name}:443:{METADATA}");
    for (arguments, exit) in [(&[][..], 6), (&["--resolve", pinned.as_str()], 7)] {
        let url = format!("https://{name}/echo?inside");
        let told = curl(&lab, &[arguments, &[&url]].concat()).await;
        assert_eq!((told.exit, told.status), (exit, 0), "{told:?}");
    }
    let denied = async |what: &str, wanted: &(dyn Fn(&Value) -> bool + Sync)| {
        daemon
            .record(what, |record| {
                record["decision"]["effect"] == "deny" && wanted(record)
            })
            .await
            .unwrap()
    };
    let record = denied("the name", &|record| record["dns"]["name"] == name).await;
    let reason = record["decision"]["reason"].as_str().unwrap();
    assert!(reason.contains("169.254.169.254"), "{record}");
    denied("the address", &|record| {
        record["tcp"]["address"] == METADATA.to_string()
    })
    .await;
    assert_eq!(metadata.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebinding_under_a_living_workload() {
    let lab = Lab::new().unwrap();
    let name = "rebind.lab.example";
    let world = lab.https(&[name], SocketAddr::new(WORLD, 443)).unwrap();
    let metadata = lab.https(&[name], SocketAddr::new(METADATA, 443)).unwrap();
    lab.dns.points(name, &[WORLD]);
    let daemon = lab
        .daemon(&policy(&["{ host: rebind.lab.example }"]))
        .await
        .unwrap();
    // It looks the name up once and dials that address from then on.
    let script = format!(
        "curl -s -o /dev/null https://{name}/echo?begin; while :; do curl -s --max-time 5 \
         --resolve {name}:443:{WORLD} -w '\\n%{{http_code}}\\n' https://{name}/echo?again; sleep 0.1; done"
    );
    let workload = crate::place::start(&lab, "rebind", &["sh", "-c", &script]);
    let limit = std::time::Duration::from_secs(30);
    exeat_tests::wait::wait_until("it works", limit, || workload.stdout().contains("\n200\n"))
        .await
        .unwrap();
    lab.dns.points(name, &[METADATA]);
    exeat_tests::wait::wait_until("the dial is refused", limit, || {
        workload.stdout().contains("upstream_dns")
    })
    .await
    .unwrap();
    assert_eq!(metadata.connections(), 0);
    assert!(world.connections() > 0);
    let record = daemon
        .record("the refused dial", |record| record["http"]["status"] == 502)
        .await
        .unwrap();
    assert!(
        record["outcome"]["error"]
            .as_str()
            .unwrap()
            .contains("169.254.169.254"),
        "{record}"
    );
}
