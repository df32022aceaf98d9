//! Why something from outside was not taken: every reason has a name, and every refusal is counted (promise G12).

/// A reason's name, and what it means and asks for, in Chinese and English.
macro_rules! reasons {
    ($($variant:ident $name:literal $zh:literal $en:literal;)*) => {
        /// A counted reason. The text is the label in metrics, in `status` and in docs/reasons.md.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Refusal {
            $(#[doc = $en] $variant,)*
        }

        impl Refusal {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it means and what to do, for people: Chinese and English.
            pub const fn meaning(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$variant => ($zh, $en),)*
                }
            }
        }
    };
}

reasons! {
    // Connecting.
    NotMqtt "not_mqtt"
        "连接上来的不是 MQTT；检查端口，或查明是谁在扫描。"
        "What connected does not speak MQTT: check the port, or find out who scans.";
    UnsupportedVersion "unsupported_version"
        "MQTT 版本不支持；设备请用 3.1.1 或 5。"
        "An MQTT version that is not spoken here: let the device use 3.1.1 or 5.";
    TooManyConnections "too_many_connections"
        "连接数已满；检查是否有设备反复重连，或调大 connections_max。"
        "All connections are taken: look for a device that reconnects in a loop, or raise `connections_max`.";
    HandshakeTimeout "handshake_timeout"
        "连接后没有及时登录；多为网络不稳或半开连接。"
        "Connected and did not log in in time: a bad network or a half-open connection.";
    HandshakeFailed "handshake_failed"
        "TLS 握手失败；检查证书、有效期和证书颁发者。"
        "The TLS handshake failed: check the certificate, its dates and its authority.";
    UnknownClient "unknown_client"
        "没有这个客户端；在配置中加 [clients.NAME]，再用 gatehouse client add 生成密钥。"
        "No such client: add [clients.NAME] to the configuration and make its secret with `gatehouse client add`.";
    WrongPassword "wrong_password"
        "密码错误；用 gatehouse client passwd 换一个，并写入设备。"
        "A wrong password: make another with `gatehouse client passwd` and enter it at the device.";
    ClientIdNotOwned "client_id_not_owned"
        "客户端标识属于别的账户；在设备上改成自己的 client_id。"
        "The MQTT client id belongs to another account: set the device's own one.";
    LoginRate "login_rate"
        "登录过于频繁；查找反复登录的设备或猜密码的人。"
        "Logins come too fast: look for a device in a loop, or for somebody who guesses.";
    WillTopic "will_topic"
        "遗嘱主题不在该客户端之下；修改设备的遗嘱主题。"
        "The will's topic is not under the client's base: change it at the device.";
    // Publishing.
    TopicMalformed "topic_malformed"
        "主题含有通配符或空字符；检查设备设置。"
        "The topic holds a wildcard or a NUL: check the device's settings.";
    TopicTooLong "topic_too_long"
        "主题过长；检查设备设置。"
        "The topic is too long: check the device's settings.";
    TopicNotOwned "topic_not_owned"
        "主题不在该客户端的 base 之下；修改 base 或设备的主题。"
        "The topic is not under the client's base: change `base` or the device's topic.";
    TopicUnknown "topic_unknown"
        "没有设备使用这个主题；在配置中加 [devices.ID]，或在 profile 的 ignore 中列出。"
        "No device has this topic: add [devices.ID], or list it under `ignore` in the profile.";
    PayloadTooLarge "payload_too_large"
        "消息过大；让设备发小一些的消息。"
        "The message is too large: let the device send smaller ones.";
    NotUtf8 "not_utf8"
        "内容不是 UTF-8 文本；检查设备的编码。"
        "The payload is not UTF-8: check the device's encoding.";
    NotJson "not_json"
        "内容不是 JSON；检查设备的消息格式。"
        "The payload is not JSON: check the device's format.";
    JsonTooDeep "json_too_deep"
        "JSON 嵌套过深；多为故障或恶意消息。"
        "JSON nested too deep: a fault or malice.";
    WrongType "wrong_type"
        "字段类型与 profile 不符；检查 profile 或设备固件。"
        "A field has another type than the profile says: check the profile or the device's firmware.";
    NotFinite "not_finite"
        "数值不是有限数（NaN 或无穷）；传感器可能故障。"
        "A number is NaN or infinite: the sensor may be broken.";
    OutOfRange "out_of_range"
        "数值超出 profile 的范围；传感器可能故障，或 profile 的范围有误。"
        "A value is outside the profile's range: a broken sensor, or a wrong range.";
    TextTooLong "text_too_long"
        "文本过长；检查设备的消息。"
        "A text is too long: check what the device sends.";
    RetainedDelivery "retained_delivery"
        "外部服务器送来的是保留的旧消息，只作状态，不算事件。"
        "An external broker delivered what it had kept: taken as state, not as an event.";
    Repeated "repeated"
        "同一条消息重复送达，已存过一次；无需处理。"
        "The same message came again and is stored already: nothing to do.";
    StoreFailed "store_failed"
        "记录写不进磁盘，未向设备确认；检查存储卡。"
        "The record could not be written and was not acknowledged: check the disk.";
    StoreSlow "store_slow"
        "磁盘过慢，未向设备确认；检查存储卡。"
        "The disk was too slow and the message was not acknowledged: check the disk.";
    StoreVolatile "store_volatile"
        "磁盘不可写，记录只在内存中：照常告警上报，但不向设备确认；检查存储卡。"
        "The disk cannot be written and the record is in memory only: it acts and is told, and is not acknowledged. Check the disk.";
    QueueFull "queue_full"
        "队列已满，数据被丢弃；磁盘跟不上。"
        "A queue is full and data were dropped: the disk does not keep up.";
    InternalFault "internal_fault"
        "程序内部错误；请报告。"
        "A fault of the gateway itself: please report it.";
    // Subscribing.
    SubscriptionDenied "subscription_denied"
        "不允许订阅；需要时在 [clients.NAME] 的 subscribe 中列出。"
        "The subscription is not allowed: list it under `subscribe` of [clients.NAME] where it is needed.";
    // From platforms.
    DownTooLarge "down_too_large"
        "平台下发的消息过大。"
        "A message from the platform is too large.";
    DownMalformed "down_malformed"
        "平台下发的消息不符合约定；见 docs/platform。"
        "A message from the platform breaks the contract: see docs/platform.";
    DownRetained "down_retained"
        "平台以保留方式下发，时间不明，未执行；平台请去掉 retain。"
        "The platform published with the retain flag, so the age is unknown and nothing was done: publish without it.";
    CommandUnknown "command_unknown"
        "不认识的命令；up/state 的 commands 列出可用的命令。"
        "An unknown command: `commands` in up/state lists those that are known.";
    CommandExpired "command_expired"
        "命令到达时已过期，未执行。"
        "The command was too old when it came: nothing was done.";
    CommandNotAllowed "command_not_allowed"
        "该平台不可下达此命令。"
        "This platform may not give this command.";
    TimeUnasked "time_unasked"
        "平台报来的时间没有人问过，或已回答过，未采用。"
        "A time that nobody asked for: its nonce is not ours, or was answered already. It was not taken.";
    TimeLate "time_late"
        "平台报时太慢，误差过大，未采用；检查网络。"
        "The answer with the time took too long to say much and was not taken: check the network.";
    TimeImplausible "time_implausible"
        "平台报来的时间不可能（早于本软件或太远的将来），未采用；检查平台时钟。"
        "The platform's time is impossible and was not taken: check the platform's clock.";
    TimeDisputed "time_disputed"
        "平台报来的时间与其他时间来源不一致，未采用；检查平台时钟。"
        "The platform's time contradicts others who know it and was not taken: check the platform's clock.";
    // From a Modbus line.
    NoReply "no_reply"
        "设备在超时时间内没有应答；检查供电、接线、地址和波特率。"
        "No reply within the time-out: check power, wiring, unit number and baud rate.";
    FrameShort "frame_short"
        "应答中断；检查接线、终端电阻和干扰。"
        "A reply broke off: check wiring, termination and interference.";
    FrameSurplus "frame_surplus"
        "应答后还有多余字节；可能有两台设备同一地址，或总线上另有主站。"
        "More came than the reply: two devices with one number, or another master on the line.";
    FrameCrc "frame_crc"
        "校验错误；检查接线、屏蔽、终端电阻和波特率。"
        "A wrong checksum: check wiring, shield, termination and baud rate.";
    FrameUnit "frame_unit"
        "应答来自别的设备地址；检查是否地址重复，或网关设置有误。"
        "Another unit answered: check for a number given twice, or the gateway's settings.";
    FrameLate "frame_late"
        "迟到的应答，属于之前的请求，未采用；调大 timeout_ms。"
        "A late reply to an earlier request, not taken: raise `timeout_ms`.";
    FrameFunction "frame_function"
        "应答的功能码不符。"
        "The reply is to another function.";
    FrameMalformed "frame_malformed"
        "应答内容与请求不符，或报文头有误；检查设备和网关。"
        "The reply does not hold what was asked for, or its header is wrong: check device and gateway.";
    DeviceException "device_exception"
        "设备拒绝了请求（异常码）；检查 profile 中的地址和类型。"
        "The device refused the request (exception): check addresses and types in the profile.";
    LineFailed "line_failed"
        "串口或连接失败；检查线缆、USB 转换器或网关。"
        "The port or the connection failed: check the cable, the USB adapter or the gateway.";
    BetweenBands "between_bands"
        "监测回路的电阻值不在任何区间内；检查接线和终端电阻。"
        "A supervised input lies in none of its bands: check wiring and end-of-line resistor.";
    // Rules.
    ExpressionMisfit "expression_misfit"
        "规则的条件（when 或 until）与收到的值不符，得不出结果；按日志中的说明修改规则。"
        "A condition of a rule (`when`, `until`) does not fit what it was asked about: mend the rule as the log says.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_named_once_and_explained() {
        let names: std::collections::BTreeSet<&str> = Refusal::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Refusal::ALL.len());
        for reason in Refusal::ALL {
            let (zh, en) = reason.meaning();
            assert!(zh.ends_with('。') && en.ends_with('.'), "{}", reason.as_str());
        }
    }
}
