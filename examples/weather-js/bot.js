// Weather: the next three days of a place, by its name or by a location that the user sends.
//
// | a message            | answer                                         |
// |----------------------|------------------------------------------------|
// | 天气北京，天气：北京 | the weather there                              |
// | 天气                 | that of the setting CITY                       |
// | a location           | the weather there                              |
// | anything else        | none: the next plugin is asked; also 天气不错  |
//
// The data is Open-Meteo's, which needs no key for uses that are not commercial.

import { env, text } from "./aviary/aviary";

const GEOCODING = "https://geocoding-api.open-meteo.com/v1/search";
const FORECAST = "https://api.open-meteo.com/v1/forecast";

const DAYS = ["今天", "明天", "后天"];

/** The word, what parts it from a place, and the place. */
const QUESTION = /^天气([\s:：]*)([^\s:：].{0,19})?$/u;

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

/**
 * Answers a message. What goes wrong is thrown: it is a failure that the operator reads in the log, and the next plugin is asked.
 *
 * @param {import("./aviary/aviary").Message} message
 */
export async function handle({ body }) {
  const answer = await answerTo(body);
  return answer && text(answer);
}

async function answerTo(body) {
  if (body.tag === "location") {
    return forecast(body.val.label || "您的位置", body.val.latitude, body.val.longitude);
  }
  const asked = body.tag === "text" && QUESTION.exec(body.val.content.trim());
  if (!asked) return undefined;
  const [, apart, named] = asked;
  const city = named ?? env.CITY;
  if (!city) return "请告诉我城市，例如：天气北京";
  const place = await find(city);
  if (place) return forecast(place.name, place.latitude, place.longitude);
  // Written as one word, it may be a sentence that only begins with 天气.
  return named && !apart ? undefined : `没有找到“${city}”。`;
}

async function find(city) {
  const { results } = await get(`${GEOCODING}?name=${encodeURIComponent(city)}&count=1&language=zh`);
  return results?.[0];
}

async function forecast(name, latitude, longitude) {
  const fields = "weather_code,temperature_2m_max,temperature_2m_min";
  const place = `latitude=${latitude.toFixed(2)}&longitude=${longitude.toFixed(2)}`;
  const { daily } = await get(`${FORECAST}?${place}&daily=${fields}&timezone=auto&forecast_days=${DAYS.length}`);
  const lines = DAYS.map((day, index) => {
    const [low, high] = [daily.temperature_2m_min[index], daily.temperature_2m_max[index]].map(Math.round);
    return `${day} ${sky(daily.weather_code[index])} ${low}～${high} ℃`;
  });
  return [name, ...lines].join("\n");
}

async function get(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${(await answer.text()).slice(0, 200)}`);
  return answer.json();
}

function sky(code) {
  return SKIES.findLast(([from]) => from <= code)?.[1] ?? "未知";
}
