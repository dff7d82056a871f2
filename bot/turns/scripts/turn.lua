-- What stands in the record of a turn, and what it leads to.

-- The thread remembers the old question with its answer until there is a new answer.
local function replace_question(id, text, left_out)
  if has(id, 'answer') then redis.call('HSETNX', key('turn', id), 'question', get(id, 'text')) end
  set(id, 'text', text, 'left_out', left_out)
end

-- What makes a turn remembered; its id leaves the history, too.
local function drop_exchange(id)
  unset(id, 'question', 'answer', 'model', 'bytes')
  redis.call('DEL', key('ratings', id))
end

-- All that was said, but what is shown: a repair may need that.
local function drop_words(id)
  if redis.call('EXISTS', key('turn', id)) == 1 then set(id, 'text', '') end
  drop_exchange(id)
  redis.call('DEL', key('context', id))
end

-- The turns that wait behind one which was taken, without those that are answered with it.
local function waiting_behind(id, thread)
  local waiting = {}
  for _, one in ipairs(redis.call('LRANGE', key('mailbox', thread), 1, -1)) do
    local known = redis.call('HMGET', key('turn', one), 'state', 'lead')
    if known[1] and known[2] ~= id then table.insert(waiting, one) end
  end
  return waiting
end

function verbs.others_wait(id, thread)
  return #waiting_behind(id, thread) > 0 and 1 or 0
end
