//! How one metric is written: what it is called, and its samples with their labels.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit as Suffix;

use crate::api::Histogram;

/// One metric.
pub(super) struct Family<T> {
    /// Without its unit, and without `_total`.
    name: &'static str,
    /// Without its full stop.
    help: &'static str,
    unit: Option<Unit>,
    kind: Kind,
    pub(super) read: Read<T>,
}

#[derive(Clone, Copy)]
enum Unit {
    Seconds,
    Bytes,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Where its samples come from.
type Read<T> = fn(&T, &mut Rows<'_, '_>) -> fmt::Result;

pub(super) const fn gauge<T>(name: &'static str, help: &'static str, read: Read<T>) -> Family<T> {
    family(name, help, Kind::Gauge, read)
}

pub(super) const fn counter<T>(name: &'static str, help: &'static str, read: Read<T>) -> Family<T> {
    family(name, help, Kind::Counter, read)
}

pub(super) const fn histogram<T>(
    name: &'static str,
    help: &'static str,
    read: Read<T>,
) -> Family<T> {
    in_seconds(family(name, help, Kind::Histogram, read))
}

const fn family<T>(name: &'static str, help: &'static str, kind: Kind, read: Read<T>) -> Family<T> {
    Family {
        name,
        help,
        unit: None,
        kind,
        read,
    }
}

pub(super) const fn in_seconds<T>(mut family: Family<T>) -> Family<T> {
    family.unit = Some(Unit::Seconds);
    family
}

pub(super) const fn in_bytes<T>(mut family: Family<T>) -> Family<T> {
    family.unit = Some(Unit::Bytes);
    family
}

impl<T> Family<T> {
    /// Writes what it is, and has `fill` write its samples.
    pub(super) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        fill: impl FnOnce(&mut Rows<'_, '_>) -> fmt::Result,
    ) -> fmt::Result {
        let unit = self.unit.map(|unit| match unit {
            Unit::Seconds => Suffix::Seconds,
            Unit::Bytes => Suffix::Bytes,
        });
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let mut encoder = encoder.encode_descriptor(self.name, self.help, unit.as_ref(), kind)?;
        fill(&mut Rows {
            encoder: &mut encoder,
            kind: self.kind,
            labels: &[],
        })
    }
}

/// What a family's samples are written with.
pub(super) struct Rows<'a, 'b> {
    encoder: &'a mut MetricEncoder<'b>,
    kind: Kind,
    /// Whom the next sample is about.
    labels: &'a [Label<'a>],
}

type Label<'a> = (&'static str, &'a str);

pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

impl Value {
    fn encode(self, kind: Kind, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (Kind::Counter, Value::Whole(value)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
            }
            (Kind::Counter, Value::Real(value)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
            }
            (Kind::Gauge | Kind::Histogram, Value::Whole(value)) => encoder.encode_gauge(&value),
            (Kind::Gauge | Kind::Histogram, Value::Real(value)) => encoder.encode_gauge(&value),
        }
    }
}

impl<'b> Rows<'_, 'b> {
    /// Has samples be about `labels`.
    pub(super) fn of(
        &mut self,
        labels: &[Label<'_>],
        fill: impl FnOnce(&mut Rows<'_, 'b>) -> fmt::Result,
    ) -> fmt::Result {
        fill(&mut Rows {
            encoder: self.encoder,
            kind: self.kind,
            labels,
        })
    }

    pub(super) fn whole(&mut self, value: u64) -> fmt::Result {
        self.labelled(&[], Value::Whole(value))
    }

    pub(super) fn real(&mut self, value: f64) -> fmt::Result {
        self.labelled(&[], Value::Real(value))
    }

    pub(super) fn flag(&mut self, value: bool) -> fmt::Result {
        self.whole(value.into())
    }

    /// A sample, if there is anything to tell.
    pub(super) fn maybe(&mut self, value: Option<f64>) -> fmt::Result {
        value.map_or(Ok(()), |value| self.real(value))
    }

    pub(super) fn labelled(&mut self, more: &[Label<'_>], value: Value) -> fmt::Result {
        let labels = Labels(self.labels, more);
        // A family without labels would be written with empty braces, which is legal and ugly.
        if labels.is_empty() {
            return value.encode(self.kind, self.encoder);
        }
        value.encode(self.kind, &mut self.encoder.encode_family(&labels)?)
    }

    pub(super) fn histogram(&mut self, histogram: &Histogram) -> fmt::Result {
        if histogram.counts.is_empty() {
            return Ok(());
        }
        let bounds = histogram.bounds_seconds.iter().copied();
        let buckets: Vec<_> = bounds
            .chain([f64::INFINITY])
            .zip(histogram.counts.iter().copied())
            .collect();
        let count = histogram.counts.iter().sum();
        let labels = Labels(self.labels, &[]);
        self.encoder
            .encode_family(&labels)?
            .encode_histogram::<NoLabelSet>(histogram.total_seconds, count, &buckets, None)
    }
}

/// Whom a sample is about, and which of its kind it is.
struct Labels<'a>(&'a [Label<'a>], &'a [Label<'a>]);

impl Labels<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut all = self.0.iter().chain(self.1);
        all.try_for_each(|label| label.encode(encoder.encode_label()))
    }
}
