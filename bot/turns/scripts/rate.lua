-- Ratings of answers.

-- Of people who rate one answer; further ratings are not stored.
local MOST_RATINGS = 200

-- Stores a person's rating of a remembered answer in its exchange, as the last field. It is added to the text
-- of the line, because cjson would round its numbers; inside of a JSON string the quotes would have backslashes.
-- Returns {model, 'first' or 'again'}.
function verbs.rate(id, person, rating)
  local turn, written = record(id), (string.gsub(person, '[^%w_.~-]', percent))
  local history = key('history', turn.thread or '')
  for at, line in ipairs(redis.call('LRANGE', history, 0, -1)) do
    if turn_of(line) == id then
      local exchange = decoded(line)
      local ratings, known = type(exchange.ratings) == 'table' and exchange.ratings or {}, 0
      for _ in pairs(ratings) do known = known + 1 end
      local again = ratings[person] ~= nil
      if (again or known < MOST_RATINGS) and not is_being_forgotten(platform_of(turn.thread), written) then
        note_of(platform_of(turn.thread), written, turn.thread)
        ratings[person] = rating
        local behind = string.find(line, ', "ratings": {', 1, true) or #line
        local head = string.sub(line, 1, behind - 1)
        redis.call('LSET', history, at - 1, head .. ', "ratings": ' .. cjson.encode(ratings) .. '}')
      end
      local counts = not again and known < MOST_RATINGS
      return {type(exchange.model) == 'string' and exchange.model or '', counts and 'first' or 'again'}
    end
  end
  return is_open(turn) and 'thread' or 'gone'
end
