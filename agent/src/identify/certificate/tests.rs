//! Certificates that speak for somebody, and everything that is wrong with others.

use std::sync::Arc;
use std::time::Duration;

use exeat_policy::NameKind;
use proptest::prelude::*;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints, SanType,
    date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::names::read;
use super::{Authorities, CertificateFault, Presented, Shown};

/// 2026-06-01.
const NOW: u64 = 1_780_272_000;
const YEAR: u64 = 366 * 24 * 3600;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// What stands above its leaves, itself excepted where it is a root.
    above: Vec<CertificateDer<'static>>,
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

fn root(name: &str) -> Ca {
    let key = KeyPair::generate().unwrap();
    let params = authority_params(name);
    let certificate = params.self_signed(&key).unwrap();
    Ca {
        pem: certificate.pem(),
        issuer: Issuer::new(params, key),
        above: Vec::new(),
    }
}

impl Ca {
    fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params(name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let above = [vec![certificate.der().clone()], self.above.clone()].concat();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            above,
        }
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let key = KeyPair::generate().unwrap();
        let params = leaf_params(change);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        [vec![leaf.der().clone()], self.above.clone()].concat()
    }
}

fn leaf_params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.subject_alt_names = vec![uri("spiffe://corp.example/bot")];
    change(&mut params);
    params
}

fn ia5(text: &str) -> Ia5String {
    Ia5String::try_from(text).unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(ia5(text))
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(ia5(text))
}

fn email(text: &str) -> SanType {
    SanType::Rfc822Name(ia5(text))
}

fn common_name(params: &mut CertificateParams, text: &str) {
    params.distinguished_name.push(DnType::CommonName, text);
}

fn authorities(given: &[(&str, &Ca)]) -> Arc<Authorities> {
    let given = given.iter().map(|(name, ca)| (*name, ca.pem.as_str()));
    Arc::new(Authorities::new(given).unwrap())
}

/// Authority, subject and names.
type Told = (String, String, Vec<(NameKind, String)>);

/// What a chain comes to at this time.
fn at(
    authorities: &Arc<Authorities>,
    chain: &[CertificateDer<'_>],
    seconds: u64,
) -> Result<Told, CertificateFault> {
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let verified = Presented::new(chain).verified_at(authorities, time)?;
    let judged = verified.judged();
    let names = judged.names.iter();
    Ok((
        judged.authority.to_owned(),
        judged.subject.to_owned(),
        names.map(|name| (name.kind, name.text.clone())).collect(),
    ))
}

#[test]
fn whose_certificates_are_verified_and_what_they_name() {
    let (corp, lab) = (root("corp"), root("lab"));
    let sub = corp.below("team", |_| {});
    let both = authorities(&[("corp", &corp), ("lab", &lab)]);
    let svid = at(&both, &corp.leaf(|_| {}), NOW).unwrap();
    assert_eq!((&*svid.0, &*svid.1), ("corp", "spiffe://corp.example/bot"));
    assert_eq!(at(&both, &sub.leaf(|_| {}), NOW).unwrap().0, "corp");
    assert_eq!(at(&both, &lab.leaf(|_| {}), NOW).unwrap().0, "lab");
    let ann = corp.leaf(|params| {
        common_name(params, "Ann Müller");
        params.subject_alt_names = vec![
            dns("*.corp.example"),
            dns("Build.CORP.example"),
            email("Ann@corp.example"),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ];
    });
    let (_, subject, names) = at(&both, &ann, NOW).unwrap();
    assert_eq!(subject, "Ann@corp.example");
    let told: Vec<_> = names.iter().map(|(kind, text)| (*kind, &**text)).collect();
    assert_eq!(
        told,
        [
            // A pattern is nobody's name.
            (NameKind::Dns, "build.corp.example"),
            (NameKind::Email, "Ann@corp.example"),
            (NameKind::CommonName, "Ann Müller"),
        ]
    );
    let plain = corp.leaf(|params| {
        params.subject_alt_names = Vec::new();
        common_name(params, "ann@corp.example");
    });
    let (_, subject, _) = at(&both, &plain, NOW).unwrap();
    assert_eq!(subject, "CN=ann@corp.example", "no address of mail");
}

#[test]
fn what_is_wrong_with_a_chain() {
    use CertificateFault as Fault;
    let (corp, other) = (root("corp"), root("corp"));
    let trusted = authorities(&[("corp", &corp)]);
    let told = |chain: &[CertificateDer<'_>], time| at(&trusted, chain, time).unwrap_err();
    let sound = corp.leaf(|_| {});
    assert_eq!(told(&sound, NOW + YEAR), Fault::Expired);
    assert_eq!(told(&sound, NOW - YEAR), Fault::Early);
    // An authority in between that is over ends what stands under it.
    let old = corp.below("team", |params| {
        params.not_after = date_time_ymd(2026, 2, 1);
    });
    assert_eq!(told(&old.leaf(|_| {}), NOW), Fault::Expired);
    // The same name, another key: the signature is not the trusted one's.
    let chain = other.leaf(|_| {});
    assert!([Fault::Signature, Fault::Unknown].contains(&told(&chain, NOW)));
    let stranger = root("nobody").leaf(|_| {});
    assert_eq!(told(&stranger, NOW), Fault::Unknown);
    // With its root beside it as well.
    let own = CertificateDer::from_pem_slice(other.pem.as_bytes()).unwrap();
    let with_root = [chain, vec![own]].concat();
    assert!([Fault::Signature, Fault::Unknown].contains(&told(&with_root, NOW)));
    let key = KeyPair::generate().unwrap();
    let alone = leaf_params(|params| common_name(params, "corp")).self_signed(&key);
    let fault = told(&[alone.unwrap().der().clone()], NOW);
    assert!(
        [Fault::Signature, Fault::Unknown].contains(&fault),
        "{fault}"
    );
    for usages in [
        vec![ExtendedKeyUsagePurpose::ServerAuth],
        vec![ExtendedKeyUsagePurpose::EmailProtection],
    ] {
        let chain = corp.leaf(|params| params.extended_key_usages = usages);
        assert_eq!(told(&chain, NOW), Fault::Purpose);
    }
    // Nobody's authority speaks for itself, and who is none vouches for nobody.
    let sub = corp.below("team", |_| {});
    assert!(matches!(told(&sub.above, NOW), Fault::Unverified(_)));
    let key = KeyPair::generate().unwrap();
    let params = leaf_params(|_| {});
    let above = params.signed_by(&key, &corp.issuer).unwrap();
    let mut client = root("x");
    client.issuer = Issuer::new(params, key);
    client.above = vec![above.der().clone()];
    let fault = told(&client.leaf(|_| {}), NOW);
    assert!(
        matches!(fault, Fault::Unverified(_) | Fault::Unknown),
        "{fault}"
    );
    // Long chains are not looked at, and rubbish is none.
    let mut deep = corp.below("1", |_| {});
    for number in 2..=9 {
        deep = deep.below(&number.to_string(), |_| {});
    }
    assert_eq!(told(&deep.leaf(|_| {}), NOW), Fault::Chain);
    let same = vec![sound[0].clone(); 200];
    assert_eq!(told(&same, NOW), Fault::Chain);
    assert_eq!(told(&[], NOW), Fault::Unreadable);
    let garbage = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 1, 2, 3]);
    assert_eq!(told(&[garbage], NOW), Fault::Unreadable);
    let mut longer = sound[0].to_vec();
    longer.push(0);
    assert_eq!(told(&[longer.into()], NOW), Fault::Unreadable);
}

#[test]
fn authorities_give_the_names_that_they_may_give() {
    let corp = root("corp");
    let trusted = authorities(&[("corp", &corp)]);
    let within = |permitted: Vec<GeneralSubtree>| {
        corp.below("team", |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: permitted,
                excluded_subtrees: Vec::new(),
            });
        })
    };
    let team = within(vec![GeneralSubtree::DnsName("team.example".to_owned())]);
    let named = |ca: &Ca, name: SanType| {
        let chain = ca.leaf(|params| params.subject_alt_names = vec![name]);
        at(&trusted, &chain, NOW)
    };
    named(&team, dns("a.team.example")).unwrap();
    let fault = named(&team, dns("a.corp.example")).unwrap_err();
    assert!(matches!(&fault, CertificateFault::Unverified(_)), "{fault}");
    assert!(fault.to_string().contains("NameConstraint"), "{fault}");
    let mail = within(vec![GeneralSubtree::Rfc822Name("team.example".to_owned())]);
    let fault = named(&mail, email("ann@corp.example")).unwrap_err();
    assert!(fault.to_string().contains("NameConstraint"), "{fault}");
}

#[test]
fn names_that_read_in_two_ways_are_refused() {
    use CertificateFault as Fault;
    let corp = root("corp");
    let trusted = authorities(&[("corp", &corp)]);
    let named = |names: Vec<SanType>| {
        let chain = corp.leaf(|params| params.subject_alt_names = names);
        at(&trusted, &chain, NOW).unwrap_err()
    };
    for name in [
        uri("spiffe://corp.example/bot\0.evil"),
        uri("spiffe://corp.example/bot\n"),
        uri("spiffe://corp.example/a bot"),
        uri(""),
        dns("corp.example\0.evil.example"),
        email("ann@corp.example\0"),
        uri(&format!("spiffe://corp.example/{}", "a".repeat(2048))),
    ] {
        assert_eq!(named(vec![name]), Fault::Name);
    }
    assert_eq!(named(Vec::new()), Fault::Nameless);
    assert_eq!(named(vec![dns("*.corp.example")]), Fault::Nameless);
    let pattern = uri("spiffe://corp.example/agents/*");
    assert_eq!(named(vec![pattern]), Fault::Nameless);
    let two = vec![uri("spiffe://corp.example/a"), uri("https://x.example")];
    assert_eq!(named(two), Fault::Svid);
    let two = vec![
        uri("SPIFFE://corp.example/a"),
        uri("spiffe://corp.example/b"),
    ];
    assert_eq!(named(two), Fault::Svid);
    let many = (0..65).map(|number| dns(&format!("a{number}.example")));
    assert_eq!(named(many.collect()), Fault::Names);
    // In a type that no reader takes for ASCII.
    let raw = |content: Vec<u8>| {
        let chain = corp.leaf(|params| {
            params.subject_alt_names = Vec::new();
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
            params.custom_extensions = vec![extension];
        });
        at(&trusted, &chain, NOW).unwrap_err()
    };
    assert_eq!(raw(vec![0x30, 4, 0x86, 2, 0xff, 0xfe]), Fault::Name);
    assert_eq!(
        raw(vec![0x30, 4, 0x86, 2, 0xc3, 0xa9]),
        Fault::Name,
        "not ASCII"
    );
    assert_eq!(raw(vec![0x30, 4, 0x86, 9, b'a', b'b']), Fault::Unreadable);
    // Of two common names, none is the name.
    let chain = corp.leaf(|params| {
        params.subject_alt_names = Vec::new();
        params.distinguished_name.push(DnType::CommonName, "ann");
        let oid = DnType::CustomDnType(vec![2, 5, 4, 3]);
        params.distinguished_name.push(oid, "root");
    });
    assert_eq!(at(&trusted, &chain, NOW).unwrap_err(), Fault::Nameless);
    let chain = corp.leaf(|params| common_name(params, "ann\nroot"));
    assert_eq!(at(&trusted, &chain, NOW).unwrap_err(), Fault::Name);
}

#[test]
fn what_was_verified_is_verified_again() {
    let (corp, lab) = (root("corp"), root("lab"));
    let trusted = authorities(&[("corp", &corp)]);
    let presented = Presented::new(&corp.leaf(|_| {}));
    let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let told = |authorities, seconds| {
        let verified = presented.verified_at(authorities, time(seconds));
        verified.map(drop)
    };
    for _ in 0..2 {
        assert_eq!(told(&trusted, NOW), Ok(()));
        let over = Err(CertificateFault::Expired);
        assert_eq!(told(&trusted, NOW + YEAR), over, "on the same connection");
    }
    let others = authorities(&[("lab", &lab)]);
    assert_eq!(told(&trusted, NOW), Ok(()));
    let unknown = Err(CertificateFault::Unknown);
    assert_eq!(told(&others, NOW), unknown, "within the same second");
    // What waited asks again, and is the same authority's or nobody's.
    let chain = corp.leaf(|params| params.not_after = date_time_ymd(2040, 1, 1));
    let presented = Arc::new(Presented::new(&chain));
    let shown = Shown::of(&presented, &trusted).unwrap();
    assert!(shown.holds(&trusted) && !shown.holds(&others));
    assert!(!shown.holds(&authorities(&[("renamed", &corp)])));
    let said = format!("{presented:?} {shown:?} {trusted:?}");
    assert!(!said.contains("spiffe"), "{said}");
}

#[test]
fn files_of_authorities_hold_authorities() {
    let told = |pem: &str| {
        let made = Authorities::new([("corp", pem)]);
        made.map(drop).unwrap_err().to_string()
    };
    assert!(told("").contains("`corp` holds no certificate"));
    assert!(told("-----BEGIN CERTIFICATE-----\nx").contains("`corp`"));
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(told(bad).contains("using a certificate of the client authority `corp`"));
    let _none = Authorities::new([]).unwrap();
}

proptest! {
    /// Whatever a certificate's bytes are, it has names that can be compared, or a fault.
    #[test]
    fn names_are_plain_or_a_fault(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let chain = root("corp").leaf(|params| {
            common_name(params, "ann");
            params.subject_alt_names = vec![uri("https://x.example/ann"), dns("x.example")];
        });
        let mut bytes = chain[0].to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(names) = read(&bytes.into()) {
            prop_assert!(!names.is_empty());
            for name in names {
                prop_assert!(!name.text.is_empty() && !name.text.chars().any(char::is_control));
                prop_assert!(!name.text.contains('*'));
            }
        }
    }
}
