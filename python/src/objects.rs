//! Python's own classes and functions that conversions need, looked up once.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyList, PyModule, PyString, PyTuple, PyType};

/// The scale of the smallest of `Objects::units`.
const UNITS_MAX: i32 = 20;
/// How many dates are kept: a power of two.
const DATES: usize = 1024;

/// What is needed of the standard library and of Segue's own Python half.
pub struct Objects {
    pub date: Py<PyType>,
    pub time: Py<PyType>,
    pub datetime: Py<PyType>,
    pub timedelta: Py<PyType>,
    pub timezone: Py<PyType>,
    pub utc: Py<PyAny>,
    /// 2000-01-01, without a time zone and in UTC.
    pub epoch: Py<PyAny>,
    pub epoch_utc: Py<PyAny>,
    pub decimal: Py<PyType>,
    /// `decimal.getcontext`.
    pub decimal_context: Py<PyAny>,
    /// The multiplication of a context that never rounds.
    pub exact_multiply: Py<PyAny>,
    /// 1, 0.1, 0.01, ...
    pub units: Vec<Py<PyAny>>,
    pub uuid: Py<PyType>,
    /// A subclass whose instances can be written and then made UUIDs.
    pub uuid_blank: Py<PyAny>,
    pub uuid_unknown: Py<PyAny>,
    pub int_from_bytes: Py<PyAny>,
    /// Dates made lately, each in the place that its day has: tables often have few of them.
    pub dates: Mutex<Box<[Option<Dated>]>>,
    pub json_loads: Py<PyAny>,
    pub json_dumps: Py<PyAny>,
    pub ip_address: Py<PyAny>,
    pub ip_interface: Py<PyAny>,
    pub ip_network: Py<PyAny>,
    pub enumeration: Py<PyType>,
    pub range: Py<PyType>,
    pub multirange: Py<PyType>,
    pub types: Py<PyModule>,
    pub zone_info: Py<PyAny>,
}

/// The date of a day counted from 2000-01-01.
pub struct Dated {
    pub day: i32,
    pub date: Py<PyAny>,
}

impl Objects {
    pub fn get(py: Python<'_>) -> PyResult<&Self> {
        static OBJECTS: PyOnceLock<Objects> = PyOnceLock::new();
        OBJECTS.get_or_try_init(py, || Self::look_up(py))
    }

    fn look_up(py: Python<'_>) -> PyResult<Self> {
        let datetime = py.import("datetime")?;
        let class = |module: &Bound<'_, PyModule>, name: &str| -> PyResult<Py<PyType>> {
            Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        let utc = datetime.getattr("timezone")?.getattr("utc")?;
        let epoch = datetime.getattr("datetime")?.call1((2000, 1, 1))?;
        let epoch_utc = datetime.getattr("datetime")?.call1((2000, 1, 1, 0, 0, 0, 0, &utc))?;
        let decimal = py.import("decimal")?;
        let decimal_class = decimal.getattr("Decimal")?.cast_into::<PyType>()?;
        let unit = |scale: i32| Ok(decimal_class.call1(((0, (1,), -scale),))?.unbind());
        let exact = decimal.getattr("Context")?;
        let options = PyDict::new(py);
        // The digits of two factors; nothing is trapped.
        options.set_item("prec", 2 * UNITS_MAX)?;
        options.set_item("Emax", 1000)?;
        options.set_item("Emin", -1000)?;
        options.set_item("traps", PyList::empty(py))?;
        let uuid = py.import("uuid")?;
        let json = py.import("json")?;
        let ipaddress = py.import("ipaddress")?;
        let types = py.import("segue.types")?;
        Ok(Self {
            date: class(&datetime, "date")?,
            time: class(&datetime, "time")?,
            datetime: class(&datetime, "datetime")?,
            timedelta: class(&datetime, "timedelta")?,
            timezone: class(&datetime, "timezone")?,
            utc: utc.unbind(),
            epoch: epoch.unbind(),
            epoch_utc: epoch_utc.unbind(),
            exact_multiply: exact.call((), Some(&options))?.getattr("multiply")?.unbind(),
            units: (0..=UNITS_MAX).map(unit).collect::<PyResult<_>>()?,
            decimal_context: decimal.getattr("getcontext")?.unbind(),
            decimal: decimal_class.unbind(),
            uuid: class(&uuid, "UUID")?,
            uuid_blank: types.getattr("_BlankUUID")?.unbind(),
            int_from_bytes: py.get_type::<PyInt>().getattr("from_bytes")?.unbind(),
            dates: Mutex::new((0..DATES).map(|_| None).collect()),
            uuid_unknown: uuid.getattr("SafeUUID")?.getattr("unknown")?.unbind(),
            json_loads: json.getattr("loads")?.unbind(),
            json_dumps: json.getattr("dumps")?.unbind(),
            ip_address: ipaddress.getattr("ip_address")?.unbind(),
            ip_interface: ipaddress.getattr("ip_interface")?.unbind(),
            ip_network: ipaddress.getattr("ip_network")?.unbind(),
            enumeration: class(&py.import("enum")?, "Enum")?,
            range: class(&types, "Range")?,
            multirange: class(&types, "Multirange")?,
            types: types.unbind(),
            zone_info: py.import("zoneinfo")?.getattr("ZoneInfo")?.unbind(),
        })
    }
}

/// The time zone of this name, as a tzinfo: UTC for one that Python does not know.
pub fn time_zone<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let objects = Objects::get(py)?;
    if matches!(name, "" | "UTC" | "Etc/UTC" | "GMT" | "Etc/GMT") {
        return Ok(objects.utc.bind(py).clone());
    }
    let name = PyString::new(py, name);
    Ok(objects.zone_info.bind(py).call1((name,)).unwrap_or_else(|_| objects.utc.bind(py).clone()))
}

/// A tuple of values that may each fail to be made.
pub fn tuple<'py>(
    py: Python<'py>,
    values: impl ExactSizeIterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, values.map(Made))
}

/// A list of values that may each fail to be made.
pub fn list<'py>(
    py: Python<'py>,
    values: impl ExactSizeIterator<Item = PyResult<Bound<'py, PyAny>>>,
) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, values.map(Made))
}

/// A value, or why it could not be made.
struct Made<'py>(PyResult<Bound<'py, PyAny>>);

impl<'py> IntoPyObject<'py> for Made<'py> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, _: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0
    }
}
