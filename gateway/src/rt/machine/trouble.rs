//! What may be wrong with the box: the event that begins each trouble, and the one that ends it, in words.

use std::collections::BTreeMap;

use super::state::Turn;
use crate::model::record::{Draft, Severity, Text, Value};
use crate::model::stamp::Stamp;

/// Chinese and English.
type Words = (&'static str, &'static str);

/// A condition that comes and goes.
#[derive(Debug)]
pub(super) struct Trouble {
    begins: (&'static str, Severity),
    said: Words,
    ends: &'static str,
    /// It was there and is over.
    back: Words,
    /// It is not there some time after a start, when nobody knows whether it was before.
    well: Words,
}

impl Trouble {
    /// The event of a turn; `param` goes with the one that begins it.
    pub(super) fn told(&self, turn: Option<Turn>, at: &Stamp, param: Option<(&str, Value)>) -> Option<Draft> {
        let (begins, severity) = self.begins;
        Some(match turn? {
            Turn::Came => event(at, (begins, Some(severity)), param, self.said),
            Turn::Gone => self.over(at, self.back),
            Turn::Well => self.over(at, self.well),
        })
    }

    fn over(&self, at: &Stamp, words: Words) -> Draft {
        event(at, (self.ends, None), Some(("clears", Value::Text(self.begins.0.into()))), words)
    }
}

/// An event of the box.
pub(super) fn event(
    at: &Stamp,
    named: (&str, Option<Severity>),
    param: Option<(&str, Value)>,
    (zh, en): Words,
) -> Draft {
    let params: BTreeMap<String, Value> =
        param.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Draft::of_gateway(at, None, named, params, Text { zh: zh.to_owned(), en: en.to_owned() })
}

pub(super) const HOT: Trouble = Trouble {
    begins: ("box.hot", Severity::Major),
    said: ("网关设备温度过高", "the box is too hot"),
    ends: "box.cooled",
    back: ("网关设备温度恢复", "the box has cooled"),
    well: ("网关设备温度正常", "the box is not too hot"),
};

pub(super) const UNDERVOLTAGE: Trouble = Trouble {
    begins: ("box.undervoltage", Severity::Major),
    said: ("网关供电电压不足", "the supply of the box gives too little voltage"),
    ends: "box.voltage_restored",
    back: ("网关供电电压恢复", "the voltage of the box is well again"),
    well: ("网关供电电压正常", "the voltage of the box is well"),
};

pub(super) const MAINS_LOST: Trouble = Trouble {
    begins: ("box.mains_lost", Severity::Major),
    said: ("市电中断，网关由备用电源供电", "mains power is lost; the box runs on its battery"),
    ends: "box.mains_restored",
    back: ("市电恢复", "mains power is back"),
    well: ("市电正常", "mains power is there"),
};

pub(super) const MEMORY_SHORT: Trouble = Trouble {
    begins: ("box.memory_short", Severity::Minor),
    said: ("网关内存不足", "the box is short of memory"),
    ends: "box.memory_restored",
    back: ("网关内存恢复", "the box has memory again"),
    well: ("网关内存充足", "the box has enough memory"),
};

pub(super) const MODEM_FAILED: Trouble = Trouble {
    begins: ("box.modem_failed", Severity::Major),
    said: ("网关通信模块或 SIM 卡不可用", "the modem of the box, or its SIM card, cannot be used"),
    ends: "box.modem_restored",
    back: ("网关通信模块恢复", "the modem of the box can be used again"),
    well: ("网关通信模块正常", "the modem of the box can be used"),
};

pub(super) const SIGNAL_LOW: Trouble = Trouble {
    begins: ("box.signal_low", Severity::Warning),
    said: ("网关移动信号弱", "the mobile signal of the box is low"),
    ends: "box.signal_restored",
    back: ("网关移动信号恢复", "the mobile signal of the box is well again"),
    well: ("网关移动信号正常", "the mobile signal of the box is well"),
};

pub(super) const LID_FAILED: Trouble = Trouble {
    begins: ("box.lid_failed", Severity::Minor),
    said: ("网关机箱防拆触点无法读取", "the contact at the box's lid cannot be read"),
    ends: "box.lid_restored",
    back: ("网关机箱防拆触点恢复", "the contact at the box's lid can be read again"),
    well: ("网关机箱防拆触点正常", "the contact at the box's lid can be read"),
};

pub(super) const OPENED: Trouble = Trouble {
    begins: ("box.opened", Severity::Major),
    said: ("网关机箱被打开", "the box has been opened"),
    ends: "box.closed",
    back: ("网关机箱已关闭", "the box has been closed"),
    well: ("网关机箱关闭", "the box is closed"),
};
