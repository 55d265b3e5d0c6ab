//! Decides what a node and its server would have stamped: exchanges over a modelled road with modelled
//! clocks, and the truth beside them. Also reads and writes them as CSV.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use turnwise_engine::{Exchange, LocalInstant, ServerInstant};

use crate::random::Stream;

/// One exchange and the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The four stamps.
    pub exchange: Exchange,
    /// Server time minus local time at the sending, in nanoseconds.
    pub true_offset: i64,
}

/// The laws that a trace is made by. Text such as `rtt=5ms,interval=10s,asymmetry=0.2` gives one; what is
/// not named has its default.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The seed of all chance.
    pub seed: u64,
    /// How many exchanges.
    pub samples: usize,
    /// The time from one exchange to the next, give or take a twentieth.
    pub interval: Duration,
    /// The shortest round trip.
    pub rtt: Duration,
    /// How unevenly it is shared: 0 halves, 0.2 gives the way there 60 %, -1 the way back all.
    pub asymmetry: f64,
    /// The scale of what queues add to each way: the mean of the usual delay is twice that.
    pub jitter: Duration,
    /// The share of exchanges whose way is held up for longer, from 0 to 1.
    pub tail: f64,
    /// The mean of a commit that is hidden between the server's last stamp and the way back.
    pub commit: Duration,
    /// The mean time between changes of the route, one way at a time; zero: never.
    pub routes: Duration,
    /// The mean time between congestion episodes, which last ten intervals; zero: never.
    pub congestion: Duration,
    /// The resolution of the server's stamps.
    pub resolution: Duration,
    /// The local clock is wrong by up to this, in parts per million.
    pub drift: f64,
    /// How the local clock's frequency wanders: the standard deviation of its change over a second, in
    /// parts per billion.
    pub wander: f64,
    /// How far the server's clock is set, forward and back in turn.
    pub step: Duration,
    /// The mean time between such steps; zero: never.
    pub steps: Duration,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            seed: 1,
            samples: 2_000,
            interval: Duration::from_secs(3),
            rtt: Duration::from_millis(5),
            asymmetry: 0.0,
            jitter: Duration::from_micros(50),
            tail: 0.02,
            commit: Duration::ZERO,
            routes: Duration::ZERO,
            congestion: Duration::ZERO,
            resolution: Duration::from_micros(1),
            drift: 30.0,
            wander: 3.0,
            step: Duration::ZERO,
            steps: Duration::ZERO,
        }
    }
}

/// A specification that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut spec = Self::default();
        let mut jitter = None;
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| SpecError(format!("{part:?} is not of the form key=value")))?;
            let (key, value) = (key.trim(), value.trim());
            match key {
                "seed" => spec.seed = number(key, value, 0.0, 9e15)? as u64,
                "samples" => spec.samples = number(key, value, 50.0, 1e7)? as usize,
                "interval" => spec.interval = duration(key, value, 1e-3, 1e5)?,
                "rtt" => spec.rtt = duration(key, value, 0.0, 10.0)?,
                "asymmetry" => spec.asymmetry = number(key, value, -1.0, 1.0)?,
                "jitter" => jitter = Some(duration(key, value, 1e-7, 10.0)?),
                "tail" => spec.tail = number(key, value, 0.0, 1.0)?,
                "commit" => spec.commit = duration(key, value, 0.0, 10.0)?,
                "routes" => spec.routes = duration(key, value, 0.0, 1e7)?,
                "congestion" => spec.congestion = duration(key, value, 0.0, 1e7)?,
                "resolution" => spec.resolution = duration(key, value, 1e-9, 1.0)?,
                "drift" => spec.drift = number(key, value, 0.0, 400.0)?,
                "wander" => spec.wander = number(key, value, 0.0, 1e4)?,
                "step" => spec.step = duration(key, value, 0.0, 1e6)?,
                "steps" => spec.steps = duration(key, value, 0.0, 1e7)?,
                _ => {
                    return Err(SpecError(format!(
                        "there is no {key:?} in a specification; there are seed, samples, interval, \
                         rtt, asymmetry, jitter, tail, commit, routes, congestion, resolution, drift, \
                         wander, step, steps"
                    )));
                }
            }
        }
        spec.jitter = jitter.unwrap_or_else(|| (spec.rtt / 100).max(Duration::from_micros(10)));
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration;
        write!(
            f,
            "seed={},samples={},interval={},rtt={},asymmetry={},jitter={},tail={},commit={},routes={},\
             congestion={},resolution={},drift={},wander={},step={},steps={}",
            self.seed,
            self.samples,
            time(self.interval),
            time(self.rtt),
            self.asymmetry,
            time(self.jitter),
            self.tail,
            time(self.commit),
            time(self.routes),
            time(self.congestion),
            time(self.resolution),
            self.drift,
            self.wander,
            time(self.step),
            time(self.steps)
        )
    }
}

fn number(key: &str, value: &str, least: f64, most: f64) -> Result<f64, SpecError> {
    let number: f64 =
        value.parse().map_err(|_| SpecError(format!("{key}={value}: {value:?} is no number")))?;
    if !(least..=most).contains(&number) {
        return Err(SpecError(format!("{key}={value}: it must be from {least} to {most}")));
    }
    Ok(number)
}

fn duration(key: &str, value: &str, least: f64, most: f64) -> Result<Duration, SpecError> {
    let duration = if value == "0" {
        Duration::ZERO
    } else {
        humantime::parse_duration(value)
            .map_err(|error| SpecError(format!("{key}={value}: {error}")))?
    };
    if !(least..=most).contains(&duration.as_secs_f64()) {
        return Err(SpecError(format!("{key}={value}: it must be from {least} s to {most} s")));
    }
    Ok(duration)
}

/// The law of what queues add to one way: usually a gamma of shape 2, now and then a Lomax of shape 1.5,
/// ten times as wide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Queueing {
    /// The gamma's scale in nanoseconds.
    pub scale: f64,
    /// The share of the Lomax.
    pub tail: f64,
}

impl Queueing {
    const TAIL_SHAPE: f64 = 1.5;
    const TAIL_WIDTH: f64 = 10.0;

    /// One delay in nanoseconds.
    pub fn draw_from(self, random: &mut Stream) -> f64 {
        if random.uniform() < self.tail {
            let scale = self.scale * Self::TAIL_WIDTH;
            scale * (libm::pow(random.uniform(), -1.0 / Self::TAIL_SHAPE) - 1.0)
        } else {
            -self.scale * (random.ln_uniform() + random.ln_uniform())
        }
    }

    /// The density at `x` nanoseconds, per nanosecond.
    pub fn density(self, x: f64) -> f64 {
        if x < 0.0 {
            return 0.0;
        }
        let usual = x / self.scale / self.scale * (-x / self.scale).exp();
        let scale = self.scale * Self::TAIL_WIDTH;
        let tail = Self::TAIL_SHAPE / scale * (1.0 + x / scale).powf(-Self::TAIL_SHAPE - 1.0);
        (1.0 - self.tail) * usual + self.tail * tail
    }

    /// The median in nanoseconds.
    pub fn median(self) -> f64 {
        let (mut low, mut high) = (0.0, 1e3 * self.scale);
        for _ in 0..80 {
            let middle = f64::midpoint(low, high);
            if self.share_below(middle) < 0.5 { low = middle } else { high = middle }
        }
        low
    }

    /// The share of delays up to `x` nanoseconds.
    pub fn share_below(self, x: f64) -> f64 {
        if x <= 0.0 {
            return 0.0;
        }
        let z = x / self.scale;
        let usual = 1.0 - (1.0 + z) * (-z).exp();
        let tail = 1.0 - (1.0 + z / Self::TAIL_WIDTH).powf(-Self::TAIL_SHAPE);
        (1.0 - self.tail) * usual + self.tail * tail
    }
}

/// Server time when a trace begins.
const SERVER_START: f64 = 0.0;
/// The part of server time that is kept out of the floating-point numbers.
const SERVER_EPOCH: i64 = 1_780_000_000_000_000_000;
/// The part of local time that is kept out of them.
const LOCAL_EPOCH: u64 = 5_000_000_000_000;
/// What the server takes to answer.
const SERVICE_NANOS: f64 = 60_000.0;

/// No time in a trace is farther from its zero, in nanoseconds (73 years; server time is counted from 1970): of three of them the sum
/// can be computed.
const NANOS_MAX: u64 = 1 << 61;

/// Make the trace of a specification.
pub fn generate(spec: &Spec) -> Vec<Sample> {
    let nanos = |duration: Duration| duration.as_secs_f64() * 1e9;
    let mut pace = Stream::new(spec.seed, "pace");
    let mut there_queue = Stream::new(spec.seed, "there");
    let mut back_queue = Stream::new(spec.seed, "back");
    let mut clock = Stream::new(spec.seed, "clock");
    let mut events = Stream::new(spec.seed, "events");
    let queueing = Queueing { scale: nanos(spec.jitter), tail: spec.tail };
    let mut base_there = nanos(spec.rtt) * (1.0 + spec.asymmetry) / 2.0;
    let mut base_back = nanos(spec.rtt) * (1.0 - spec.asymmetry) / 2.0;

    let mut frequency = (2.0 * clock.uniform() - 1.0) * spec.drift * 1e-6;
    let mut phase = 0.0;
    let mut step = SERVER_START;
    let mut forward = true;
    let mut congested = 0_u32;
    let mut now = 0.0;
    let resolution = nanos(spec.resolution).max(1.0) as i64;
    let mut samples = Vec::with_capacity(spec.samples);
    for _ in 0..spec.samples {
        let pause = nanos(spec.interval) * (0.95 + 0.1 * pace.uniform());
        now += pause;
        frequency += spec.wander * 1e-9 * (pause / 1e9).sqrt() * clock.normal();
        phase += frequency * pause;
        if events.happens(pause, nanos(spec.steps)) {
            step += if forward { nanos(spec.step) } else { -nanos(spec.step) };
            forward = !forward;
        }
        if events.happens(pause, nanos(spec.routes)) {
            let base = nanos(spec.rtt) / 2.0 * (0.5 + events.uniform());
            if events.uniform() < 0.5 { base_there = base } else { base_back = base }
        }
        if congested > 0 {
            congested -= 1;
        } else if events.happens(pause, nanos(spec.congestion)) {
            congested = 10;
        }
        let crowd = if congested > 0 { 10.0 } else { 1.0 };
        let there = base_there + crowd * queueing.draw_from(&mut there_queue);
        let commit = -nanos(spec.commit) * back_queue.ln_uniform();
        let back = base_back + crowd * queueing.draw_from(&mut back_queue) + commit;

        let local = |at: f64| {
            LocalInstant::from_nanos(
                LOCAL_EPOCH.saturating_add_signed((at + phase + frequency * (at - now)) as i64),
            )
        };
        let server = |at: f64| {
            let exact = SERVER_EPOCH + (at + step) as i64;
            ServerInstant::from_nanos(exact.div_euclid(resolution) * resolution)
        };
        let sent = local(now);
        let exchange = Exchange {
            sent,
            arrived: server(now + there),
            answered: server(now + there + SERVICE_NANOS),
            received: local(now + there + SERVICE_NANOS + back),
            resolution: u32::try_from(resolution).unwrap_or(u32::MAX),
        };
        let true_offset = SERVER_EPOCH + (now + step) as i64 - sent.as_nanos() as i64;
        samples.push(Sample { exchange, true_offset });
    }
    samples
}

/// The columns of a trace file.
pub const COLUMNS: &str = "t0_ns,t1_ns,t2_ns,t3_ns,true_offset_ns";

/// A trace file that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct TraceError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for TraceError {}

/// Write a trace as CSV.
pub fn to_csv(samples: &[Sample]) -> String {
    let mut csv = format!("{COLUMNS}\n");
    for Sample { exchange, true_offset } in samples {
        csv += &format!(
            "{},{},{},{},{true_offset}\n",
            exchange.sent.as_nanos(),
            exchange.arrived.as_nanos(),
            exchange.answered.as_nanos(),
            exchange.received.as_nanos(),
        );
    }
    csv
}

/// Read a trace from CSV. The resolution of the server's stamps is taken from the stamps.
pub fn from_csv(csv: &str) -> Result<Vec<Sample>, TraceError> {
    let mut lines = csv.lines().enumerate();
    let bad = |line: usize, reason: String| Err(TraceError { line: line + 1, reason });
    match lines.next() {
        Some((_, header)) if header.trim() == COLUMNS => {}
        _ => return bad(0, format!("the first line must be the columns {COLUMNS}")),
    }
    let mut samples: Vec<Sample> = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let mut values = [0_i64; 5];
        let fields: Vec<_> = line.split(',').collect();
        if fields.len() != values.len() {
            return bad(number, format!("{} fields where there should be 5", fields.len()));
        }
        for ((value, field), name) in values.iter_mut().zip(fields).zip(COLUMNS.split(',')) {
            match field.trim().parse() {
                Ok(parsed) => *value = parsed,
                Err(_) => {
                    return bad(number, format!("{name} is {field:?}, not a whole number"));
                }
            }
        }
        for (value, name) in values.iter().zip(COLUMNS.split(',')) {
            if value.unsigned_abs() > NANOS_MAX {
                return bad(number, format!("{name} is {value}, beyond {NANOS_MAX}"));
            }
        }
        let [sent, arrived, answered, received, true_offset] = values;
        let (Ok(sent), Ok(received)) = (u64::try_from(sent), u64::try_from(received)) else {
            return bad(number, "a local time is negative".to_owned());
        };
        if received < sent {
            return bad(number, "t3_ns is before t0_ns".to_owned());
        }
        if samples.last().is_some_and(|last| last.exchange.received.as_nanos() > sent) {
            return bad(number, "t0_ns is before t3_ns of the line before".to_owned());
        }
        let exchange = Exchange {
            sent: LocalInstant::from_nanos(sent),
            arrived: ServerInstant::from_nanos(arrived),
            answered: ServerInstant::from_nanos(answered),
            received: LocalInstant::from_nanos(received),
            resolution: 1,
        };
        samples.push(Sample { exchange, true_offset });
    }
    if samples.len() <= super::judge::WARM_UP {
        let most = super::judge::WARM_UP;
        return bad(0, format!("{} samples; judging begins after {most}", samples.len()));
    }
    let stamps = samples
        .iter()
        .flat_map(|s| [s.exchange.arrived.as_nanos(), s.exchange.answered.as_nanos()]);
    let resolution = [1_000_000_000, 1_000_000, 1_000]
        .into_iter()
        .find(|unit| stamps.clone().all(|stamp| stamp % unit == 0))
        .unwrap_or(1);
    for sample in &mut samples {
        sample.exchange.resolution = resolution as u32;
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_survives_its_file() {
        let spec: Spec = "samples=100,rtt=80ms,asymmetry=0.3,seed=4".parse().unwrap();
        let samples = generate(&spec);
        assert_eq!(from_csv(&to_csv(&samples)).unwrap(), samples);
        assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
    }

    #[test]
    fn a_malformed_file_is_refused_by_line_and_field() {
        let error = from_csv("a,b\n").unwrap_err();
        assert_eq!(error.line, 1);
        let error = from_csv(&format!("{COLUMNS}\n1,2,3,4,5\n6,7,x,9,10\n")).unwrap_err();
        assert_eq!(error.to_string(), "line 3: t2_ns is \"x\", not a whole number");
    }

    #[test]
    fn nonsense_in_a_specification_is_refused_by_name() {
        for (text, word) in [
            ("rtt=-1ms", "rtt"),
            ("samples=0", "samples"),
            ("colour=red", "colour"),
            ("asymmetry=2", "asymmetry"),
            ("rtt", "key=value"),
        ] {
            let error = text.parse::<Spec>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_law_of_the_queues_is_what_it_says() {
        let law = Queueing { scale: 1_000.0, tail: 0.1 };
        let mut random = Stream::new(3, "law");
        let mut drawn: Vec<_> = (0..20_001).map(|_| law.draw_from(&mut random)).collect();
        drawn.sort_by(f64::total_cmp);
        assert!((drawn[10_000] / law.median() - 1.0).abs() < 0.03);
        let area: f64 = (0..2_000_000).map(|x| law.density(f64::from(x))).sum();
        assert!((area - 1.0).abs() < 0.02, "{area}");
    }
}
