// Weather: the next three days of a place, by its name or by a location that the user sends.
//
// | a message            | answer                                         |
// |----------------------|------------------------------------------------|
// | 天气 北京            | the weather there                              |
// | 天气                 | that of the setting CITY                       |
// | a location           | the weather there                              |
// | anything else        | none: the next plugin is asked                 |
//
// The data is Open-Meteo's, which needs no key for uses that are not commercial.

import { send, setting, text } from "../quickjs/aviary";

const GEOCODING = "https://geocoding-api.open-meteo.com/v1/search";
const FORECAST = "https://api.open-meteo.com/v1/forecast";

const DAYS = ["今天", "明天", "后天"];

// WMO's codes, each up to the next.
const SKIES = [
  [0, "晴"],
  [1, "多云"],
  [3, "阴"],
  [45, "雾"],
  [51, "小雨"],
  [61, "雨"],
  [71, "雪"],
  [80, "阵雨"],
  [85, "阵雪"],
  [95, "雷雨"],
];

export const handler = {
  // What is returned is the reply, `undefined` is none; what is thrown is the failure's text.
  handle({ body }) {
    const reply = answer(body);
    return reply && text(reply);
  },
};

function answer(body) {
  if (body.tag === "location") {
    return forecast(body.val.label || "您的位置", body.val.latitude, body.val.longitude);
  }
  const asked = body.tag === "text" && /^天气\s*(.*)$/u.exec(body.val.content.trim());
  if (!asked) return undefined;
  const city = asked[1] || setting("CITY");
  if (!city) return "请告诉我城市，例如：天气 北京";
  const place = find(city);
  return place ? forecast(place.name, place.latitude, place.longitude) : `没有找到“${city}”。`;
}

function find(city) {
  const { results } = get(`${GEOCODING}?name=${encodeURIComponent(city)}&count=1&language=zh`);
  return results?.[0];
}

function forecast(name, latitude, longitude) {
  const fields = "weather_code,temperature_2m_max,temperature_2m_min";
  const place = `latitude=${latitude.toFixed(2)}&longitude=${longitude.toFixed(2)}`;
  const { daily } = get(`${FORECAST}?${place}&daily=${fields}&timezone=auto&forecast_days=${DAYS.length}`);
  const lines = DAYS.map((day, index) => {
    const [low, high] = [daily.temperature_2m_min[index], daily.temperature_2m_max[index]].map(Math.round);
    return `${day} ${sky(daily.weather_code[index])} ${low}～${high} ℃`;
  });
  return [name, ...lines].join("\n");
}

// What goes wrong is thrown: it is a failure that the operator reads in the log, and the next plugin is asked.
function get(url) {
  const { status, body } = send(url, { method: "GET" });
  if (status !== 200) throw `${url} answered ${status}: ${body.slice(0, 200)}`;
  return JSON.parse(body);
}

function sky(code) {
  return SKIES.findLast(([from]) => from <= code)?.[1] ?? "未知";
}
