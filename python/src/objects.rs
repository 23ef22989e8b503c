//! Python's own classes and functions that conversions need, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyModule, PyString, PyTuple, PyType};

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
    pub uuid: Py<PyType>,
    pub uuid_new: Py<PyAny>,
    pub uuid_set_int: Py<PyAny>,
    pub uuid_set_safe: Py<PyAny>,
    pub uuid_unknown: Py<PyAny>,
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
        let uuid = py.import("uuid")?;
        let uuid_class = uuid.getattr("UUID")?;
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
            decimal: class(&py.import("decimal")?, "Decimal")?,
            uuid: class(&uuid, "UUID")?,
            uuid_new: uuid_class.getattr("__new__")?.unbind(),
            uuid_set_int: uuid_class.getattr("int")?.getattr("__set__")?.unbind(),
            uuid_set_safe: uuid_class.getattr("is_safe")?.getattr("__set__")?.unbind(),
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
