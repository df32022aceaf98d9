// Makes payloads with Zigbee2MQTT's own converters and writes them as JSON lines: one line a scene, with the profile
// that must understand it, the payloads in order, and the events that a person would expect of them.
//
//   npm ci && node make-payloads.mjs > payloads.jsonl
//
// As in Zigbee2MQTT the state of a device is kept and published whole, except for what must not be kept (actions).

import {createRequire} from 'node:module';

const require = createRequire(import.meta.url);
const zhc = require('zigbee-herdsman-converters');

const silent = {debug() {}, info() {}, warning() {}, error() {}};
zhc.setLogger?.(silent);

const NOT_KEPT = /^action/;

// Counts over all devices: the converters drop a sequence number that they have seen.
let sequence = 0;

// The converters tell an endpoint by its class's name.
class Endpoint {
    ID = 1;
    deviceIeeeAddress = '0x00158d0001a2b3c4';
    inputClusters = [];
    outputClusters = [];
    supportsInputCluster() { return true; }
    supportsOutputCluster() { return true; }
    getClusterAttributeValue() { return undefined; }
    saveClusterAttributeKeyValue() {}
}

class Device {
    constructor(modelID, manufacturerName) {
        this.endpoint = new Endpoint();
        this.device = {
            modelID, manufacturerName, ieeeAddr: '0x00158d0001a2b3c4', type: 'EndDevice', powerSource: 'Battery',
            endpoints: [this.endpoint], getEndpoint: () => this.endpoint, meta: {}, customClusters: {}, genBasic: {},
        };
        this.endpoint.getDevice = () => this.device;
        this.state = {};
    }

    async open() {
        this.definition = await zhc.findByDevice(this.device, false);
        if (!this.definition) throw new Error(`the converters know no ${this.device.modelID}`);
        return this;
    }

    // One Zigbee message through all converters that listen to it, as Zigbee2MQTT's receive extension does it.
    async hear(cluster, type, data) {
        sequence += 1;
        const message = {
            cluster, type, data, endpoint: this.endpoint, device: this.device, linkquality: 96, groupID: 0,
            meta: {zclTransactionSequenceNumber: sequence, frameControl: {}},
        };
        const meta = {device: this.device, logger: silent, state: this.state, deviceExposesChanged() {}, options: {}};
        const payload = {};
        const publish = () => {};
        const wanted = this.definition.fromZigbee.filter(
            (c) => c.cluster === cluster && (Array.isArray(c.type) ? c.type.includes(type) : c.type === type));
        if (wanted.length === 0) throw new Error(`${this.definition.model} does not listen to ${cluster} ${type}`);
        for (const converter of wanted) {
            // A vibration timer of 0 keeps the process from waiting for it.
            const options = {vibration_timeout: 0, occupancy_timeout: 0};
            Object.assign(payload, (await converter.convert(this.definition, message, publish, options, meta)) ?? {});
        }
        zhc.postProcessConvertedFromZigbeeMessage(this.definition, payload, {}, this.device);
        for (const [key, value] of Object.entries(payload)) {
            if (!NOT_KEPT.test(key)) this.state[key] = value;
        }
        return {...this.state, ...payload, linkquality: 96};
    }

    zone(status) {
        return this.hear('ssIasZone', 'commandStatusChangeNotification', {zonestatus: status, extendedstatus: 0});
    }

    battery(percent) {
        return this.hear('genPowerCfg', 'attributeReport', {batteryPercentageRemaining: percent * 2});
    }
}

const ALARM1 = 1, ALARM2 = 2, TAMPER = 4, BATTERY_LOW = 8;

const lock = (code, user) => (d) => d.hear('closuresDoorLock', 'commandOperationEventNotification',
    {opereventcode: code, opereventsrc: 3, userid: user, pin: 0, zigbeelocaltime: 0, data: 0});
// Source and event code stand behind the header of three bytes.
const raw = (source, code) => (d) => d.hear('closuresDoorLock', 'raw', Buffer.from([0, 0, 0, source, code]));
const zone = (status) => (d) => d.zone(status);
const battery = (percent) => (d) => d.battery(percent);
const emergency = (d) => d.hear('ssIasAce', 'commandEmergency', {});

const scenes = [
    ['z2m-button-sos', 'FNB56-SOS03FB1.5', 'feibit', 'press and release', [zone(0), zone(ALARM2), zone(0)], ['button.pressed']],
    ['z2m-button-sos', 'FNB56-SOS03FB1.5', 'feibit', 'press with a low battery', [zone(ALARM2 | BATTERY_LOW), zone(BATTERY_LOW)], ['button.pressed', 'device.battery_low']],
    ['z2m-button-sos', 'FNB56-SOS03FB1.5', 'feibit', 'battery report while pressed', [zone(ALARM2), battery(50)], ['button.pressed']],
    ['z2m-button-action', 'TS0215A', '_TZ3000_4fsgukof', 'two presses', [emergency, emergency], ['button.pressed', 'button.pressed']],
    ['z2m-button-action', 'TS0215A', '_TZ3000_4fsgukof', 'battery report after a press', [emergency, battery(80)], ['button.pressed']],
    ['z2m-contact', 'FNB56-DOS07FB2.4', 'feibit', 'tampered with', [zone(0), zone(TAMPER)], ['device.tampered']],
    ['z2m-contact', 'FNB56-DOS07FB2.4', 'feibit', 'open and close', [zone(0), zone(ALARM1), zone(0)], ['contact.opened', 'contact.closed']],
    ['z2m-contact', 'TS0203', '_TZ3000_26fmupbb', 'open, repeated, battery low', [zone(0), zone(ALARM1), zone(ALARM1), zone(ALARM1 | BATTERY_LOW)], ['contact.opened', 'device.battery_low']],
    ['z2m-smoke', 'SmokeSensor-EM', 'HEIMAN', 'alarm and end', [zone(0), zone(ALARM1), zone(0)], ['smoke.detected', 'smoke.cleared']],
    ['z2m-smoke', 'FNB56-SMF06FB1.6', 'feibit', 'tampered with, then alarm', [zone(TAMPER), zone(TAMPER | ALARM1)], ['device.tampered', 'smoke.detected']],
    ['z2m-water-leak', 'WaterSensor-EM', 'HEIMAN', 'leak and dry', [zone(0), zone(ALARM1), zone(0)], ['water_leak.detected', 'water_leak.cleared']],
    ['z2m-gas', 'GASSensor-EM', 'HEIMAN', 'alarm and end', [zone(0), zone(ALARM1), zone(0)], ['gas.detected', 'gas.cleared']],
    ['z2m-carbon-monoxide', 'COSensor-EM', 'HEIMAN', 'alarm and end', [zone(0), zone(ALARM1), zone(0)], ['carbon_monoxide.detected', 'carbon_monoxide.cleared']],
    ['z2m-motion', 'FNB56-BOT06FB2.3', 'feibit', 'motion and rest', [zone(0), zone(ALARM1), zone(0)], ['motion.detected', 'motion.cleared']],
    ['z2m-vibration', 'TS0210', '_TYZB01_3zv6oleo', 'vibration, repeated, end, again', [zone(0), zone(ALARM1), zone(ALARM1), zone(0), zone(ALARM1)], ['vibration.detected', 'vibration.detected']],
    ['z2m-lock', 'YRD226/246 TSDB', 'Yale', 'opened by slot 3, locked, wrong code', [lock(2, 3), lock(1, 3), lock(5, 0)], ['lock.unlocked', 'lock.locked', 'lock.failed']],
    ['z2m-lock', 'YRD226/246 TSDB', 'Yale', 'by hand and by key', [lock(14, 0), lock(9, 0), lock(13, 0)], ['lock.unlocked', 'lock.unlocked', 'lock.locked']],
    ['z2m-lock', 'EasyCode903G2.1', 'EasyAccess', 'by a code, by a card', [raw(0, 1), raw(3, 1)], ['access.granted', 'lock.unlocked', 'access.granted', 'lock.unlocked']],
    ['z2m-lock', 'easyCodeTouch_v1', 'Onesti Products AS', 'by a finger, locked by a card, released by us', [raw(2, 17), raw(3, 0), raw(255, 14)], ['access.granted', 'lock.unlocked', 'lock.locked', 'lock.unlocked']],
];

for (const [profile, modelID, manufacturer, what, steps, events] of scenes) {
    const device = await new Device(modelID, manufacturer).open();
    const payloads = [];
    for (const step of steps) payloads.push(await step(device));
    process.stdout.write(`${JSON.stringify({profile, model: device.definition.model, what, payloads, events})}\n`);
}
