//! Greetings as no library sends them: a ClientHello beyond every measure.

use std::net::SocketAddr;

use exeat_tests::Lab;
use exeat_tests::fixtures::Fixtures;
use exeat_tests::lab::WORLD;
use exeat_tests::wait::wait_for;
use serde_json::{Value, json};

use crate::place::{self, curl, managed, policy};
use crate::streams::gate;

const NAME: &str = "api.lab.example";

/// Greets with a library's ClientHello for each size, made as large with an extension that nobody knows; prints the
/// message's size, the record type that came first (22: a handshake, 21: an alert), and an alert's description.
const GREET: &str = r#"import json,socket,ssl,struct,sys
def hello(name,size):
  out=ssl.MemoryBIO(); context=ssl.create_default_context(); context.maximum_version=ssl.TLSVersion.TLSv1_2
  try: context.wrap_bio(ssl.MemoryBIO(),out,server_hostname=name).do_handshake()
  except ssl.SSLWantReadError: pass
  body=out.read()[9:]; at=34
  at+=1+body[at]; at+=2+struct.unpack(">H",body[at:at+2])[0]; at+=1+body[at]
  extensions=body[at+2:]; fill=size-4-at-2-len(extensions)-4
  extensions+=struct.pack(">HH",0xfade,fill&0xffff)+bytes(fill)
  body=body[:at]+struct.pack(">H",len(extensions)&0xffff)+extensions
  return b"\x01"+struct.pack(">I",len(body))[1:]+body
def greet(size):
  message=hello("api.lab.example",size); s=socket.create_connection(("api.lab.example",443),9); s.settimeout(20); got=b""
  try:
    for at in range(0,len(message),16384):
      piece=message[at:at+16384]; s.sendall(b"\x16\x03\x01"+struct.pack(">H",len(piece))+piece)
  except OSError: pass
  try:
    while len(got)<7:
      piece=s.recv(7-len(got))
      if not piece: break
      got+=piece
  except ConnectionResetError: pass
  return [len(message),got[0] if got else None,got[6] if got[:1]==b"\x15" else None]
print(json.dumps([greet(size) for size in json.loads(sys.argv[1])]))"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hello_beyond_the_limit() {
    // rustls keeps at most 64 KiB of a greeting, its headers with it; what can be said in lengths of two bytes is little
    // more. The last announces what cannot be a ClientHello any more.
    const WITHIN: u64 = 65_000;
    const BEYOND: [u64; 2] = [65_540, 1_000_000];
    let lab = Lab::new().unwrap();
    let server = lab.https(&[NAME], SocketAddr::new(WORLD, 443)).unwrap();
    let entry = format!("{{ host: {NAME} }}");
    let daemon = lab.daemon(&policy(&[&entry])).await.unwrap();
    let before = gate(&daemon);
    let python = Fixtures::find().unwrap().python(2);
    let greet = async |sizes: Value| {
        let sizes = sizes.to_string();
        let program = [python.to_str().unwrap(), "-c", GREET, &sizes];
        managed(&lab, &program).await.json().unwrap()
    };
    // It is the size alone that is refused.
    assert_eq!(greet(json!([WITHIN])).await, json!([[WITHIN, 22, null]]));
    let accepted = server.connections();
    let got = greet(json!(BEYOND)).await;
    assert_eq!(got, json!(BEYOND.map(|size| json!([size, null, null]))));
    assert_eq!(server.connections(), accepted, "nothing of it leaves");
    let refused = |record: &Value| {
        let error = record["outcome"]["error"].as_str();
        error.is_some_and(|error| error.starts_with("reading the ClientHello: "))
    };
    let records = wait_for("a record of each", place::LIMIT, async || {
        let mut records = daemon.audit().ok()?;
        records.retain(refused);
        (records.len() == BEYOND.len()).then_some(records)
    })
    .await
    .unwrap();
    for record in records {
        assert_eq!(record["kind"], "tcp", "{record}");
        assert_eq!(record["decision"]["effect"], "deny", "{record}");
        assert_eq!(record["outcome"]["status"], "refused", "{record}");
        assert_eq!(record["workload"]["name"], "demo", "{record}");
        assert_eq!(record["tcp"]["address"], WORLD.to_string(), "{record}");
    }
    // Nobody else is worse off.
    let told = curl(&lab, &["https://api.lab.example/echo"]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(gate(&daemon), before, "{}", daemon.log());
}
