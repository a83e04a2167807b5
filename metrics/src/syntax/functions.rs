//! The functions that there are: names, arguments, and how each is evaluated.

use super::Kind;

/// A function.
#[derive(Debug)]
pub struct Function {
    /// As it is written.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static [Kind],
    /// How many of them, from the end, may be left out.
    pub optional: usize,
    /// Whether the last one may be repeated.
    pub repeated: bool,
    /// What it gives.
    pub result: Kind,
    /// How it is evaluated.
    pub how: How,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// How a function is evaluated.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "those without a word of their own are the function of that name")]
pub enum How {
    /// A range of samples becomes a value.
    Over(Over),
    /// A value becomes a value.
    Each(fn(f64) -> f64),
    /// A time becomes a part of its date.
    Date(fn(&super::super::evaluate::Date) -> f64),
    Absent,
    AbsentOverTime,
    Clamp,
    ClampMin,
    ClampMax,
    HistogramQuantile,
    LabelJoin,
    LabelReplace,
    Pi,
    Round,
    Scalar,
    Sort,
    SortDesc,
    Time,
    Timestamp,
    Vector,
}

/// A function of a range of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the function of that name")]
pub enum Over {
    Avg,
    Changes,
    Count,
    Delta,
    Deriv,
    HoltWinters,
    Idelta,
    Increase,
    Irate,
    Last,
    Mad,
    Max,
    Min,
    PredictLinear,
    Present,
    Quantile,
    Rate,
    Resets,
    Stddev,
    Stdvar,
    Sum,
}

impl Over {
    /// Whether the metric's name stays.
    pub fn keeps_name(self) -> bool {
        self == Over::Last
    }
}

const fn function(
    name: &'static str,
    arguments: &'static [Kind],
    result: Kind,
    how: How,
) -> Function {
    Function { name, arguments, optional: 0, repeated: false, result, how }
}

const fn over(name: &'static str, over: Over) -> Function {
    function(name, &[Kind::Matrix], Kind::Vector, How::Over(over))
}

const fn each(name: &'static str, each: fn(f64) -> f64) -> Function {
    function(name, &[Kind::Vector], Kind::Vector, How::Each(each))
}

const fn date(name: &'static str, date: fn(&super::super::evaluate::Date) -> f64) -> Function {
    let function = function(name, &[Kind::Vector], Kind::Vector, How::Date(date));
    Function { optional: 1, ..function }
}

const fn smoothing(name: &'static str) -> Function {
    let arguments = &[Kind::Matrix, Kind::Scalar, Kind::Scalar];
    function(name, arguments, Kind::Vector, How::Over(Over::HoltWinters))
}

const VECTOR_SCALAR: &[Kind] = &[Kind::Vector, Kind::Scalar];

/// In the order of their names.
static FUNCTIONS: &[Function] = &[
    each("abs", f64::abs),
    function("absent", &[Kind::Vector], Kind::Vector, How::Absent),
    function("absent_over_time", &[Kind::Matrix], Kind::Vector, How::AbsentOverTime),
    each("acos", f64::acos),
    each("acosh", f64::acosh),
    each("asin", f64::asin),
    each("asinh", f64::asinh),
    each("atan", f64::atan),
    each("atanh", f64::atanh),
    over("avg_over_time", Over::Avg),
    each("ceil", f64::ceil),
    over("changes", Over::Changes),
    function("clamp", &[Kind::Vector, Kind::Scalar, Kind::Scalar], Kind::Vector, How::Clamp),
    function("clamp_max", VECTOR_SCALAR, Kind::Vector, How::ClampMax),
    function("clamp_min", VECTOR_SCALAR, Kind::Vector, How::ClampMin),
    each("cos", f64::cos),
    each("cosh", f64::cosh),
    over("count_over_time", Over::Count),
    date("day_of_month", |date| f64::from(date.day)),
    date("day_of_week", |date| f64::from(date.weekday)),
    date("day_of_year", |date| f64::from(date.day_of_year)),
    date("days_in_month", |date| f64::from(date.days_in_month)),
    each("deg", f64::to_degrees),
    over("delta", Over::Delta),
    over("deriv", Over::Deriv),
    // Prometheus 3's name of the older one.
    smoothing("double_exponential_smoothing"),
    each("exp", f64::exp),
    each("floor", f64::floor),
    function(
        "histogram_quantile",
        &[Kind::Scalar, Kind::Vector],
        Kind::Vector,
        How::HistogramQuantile,
    ),
    smoothing("holt_winters"),
    date("hour", |date| f64::from(date.hour)),
    over("idelta", Over::Idelta),
    over("increase", Over::Increase),
    over("irate", Over::Irate),
    Function {
        repeated: true,
        optional: 1,
        ..function(
            "label_join",
            &[Kind::Vector, Kind::Text, Kind::Text, Kind::Text],
            Kind::Vector,
            How::LabelJoin,
        )
    },
    function(
        "label_replace",
        &[Kind::Vector, Kind::Text, Kind::Text, Kind::Text, Kind::Text],
        Kind::Vector,
        How::LabelReplace,
    ),
    over("last_over_time", Over::Last),
    each("ln", f64::ln),
    each("log10", f64::log10),
    each("log2", f64::log2),
    over("mad_over_time", Over::Mad),
    over("max_over_time", Over::Max),
    over("min_over_time", Over::Min),
    date("minute", |date| f64::from(date.minute)),
    date("month", |date| f64::from(date.month)),
    function("pi", &[], Kind::Scalar, How::Pi),
    function(
        "predict_linear",
        &[Kind::Matrix, Kind::Scalar],
        Kind::Vector,
        How::Over(Over::PredictLinear),
    ),
    over("present_over_time", Over::Present),
    function(
        "quantile_over_time",
        &[Kind::Scalar, Kind::Matrix],
        Kind::Vector,
        How::Over(Over::Quantile),
    ),
    each("rad", f64::to_radians),
    over("rate", Over::Rate),
    over("resets", Over::Resets),
    Function { optional: 1, ..function("round", VECTOR_SCALAR, Kind::Vector, How::Round) },
    function("scalar", &[Kind::Vector], Kind::Scalar, How::Scalar),
    each("sgn", |value| {
        if value < 0.0 {
            -1.0
        } else if value > 0.0 {
            1.0
        } else {
            value
        }
    }),
    each("sin", f64::sin),
    each("sinh", f64::sinh),
    function("sort", &[Kind::Vector], Kind::Vector, How::Sort),
    function("sort_desc", &[Kind::Vector], Kind::Vector, How::SortDesc),
    each("sqrt", f64::sqrt),
    over("stddev_over_time", Over::Stddev),
    over("stdvar_over_time", Over::Stdvar),
    over("sum_over_time", Over::Sum),
    each("tan", f64::tan),
    each("tanh", f64::tanh),
    function("time", &[], Kind::Scalar, How::Time),
    function("timestamp", &[Kind::Vector], Kind::Vector, How::Timestamp),
    function("vector", &[Kind::Scalar], Kind::Vector, How::Vector),
    date("year", |date| date.year as f64),
];

impl Function {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Function> {
        FUNCTIONS.iter().find(|function| function.name == name)
    }

    /// All of them.
    pub fn all() -> &'static [Function] {
        FUNCTIONS
    }
}
