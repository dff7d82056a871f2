-- A turn's question.

-- The context is dropped with its question.
local function drop_question(id)
  local name = key('turn', id)
  if redis.call('HEXISTS', name, 'text') == 1 then redis.call('HSET', name, 'text', '') end
  redis.call('HDEL', name, 'context')
end

-- The question of the thread's last exchange.
local function last_question(thread)
  local question = decoded(redis.call('LINDEX', key('history', thread), -1) or '').question
  return type(question) == 'string' and question or nil
end

-- The thread's last exchange must be this turn's. The record has a question that was edited since.
local function recall_question(id, thread)
  local question = redis.call('HGET', key('turn', id), 'text') == '' and last_question(thread)
  if question then redis.call('HSET', key('turn', id), 'text', question) end
end
