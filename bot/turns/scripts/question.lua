-- A turn's question, which is the end of its body. So it can be removed and put back without decoding the rest:
-- cjson rounds large numbers.

-- A body is JSON that ends with the question. So the question can be removed and put back without decoding
-- the rest: cjson rounds large numbers. `head` is what precedes it.
local function with_question(head, text)
  return head .. ', "text": ' .. text .. '}'
end

local NO_QUESTION = with_question('', '""')

local function put_question(id, text)
  local body, size = unpack(redis.call('HMGET', key('turn', id), 'body', 'head_size'))
  if not (body and tonumber(size)) then return end
  redis.call('HSET', key('turn', id), 'body', with_question(string.sub(body, 1, tonumber(size)), text))
end

-- The context is dropped with its question.
local function drop_question(id)
  put_question(id, '""')
  redis.call('HDEL', key('turn', id), 'context')
end

-- `left_out` is in the head. Within a JSON string its quotes would have a backslash before them.
local function replace_question(id, text, left_out)
  local name = key('turn', id)
  local body, size = unpack(redis.call('HMGET', name, 'body', 'head_size'))
  if not (body and tonumber(size)) then return end
  local head = string.sub(body, 1, tonumber(size))
  head = string.gsub(head, '"left_out": %d+', '"left_out": ' .. left_out, 1)
  redis.call('HSET', name, 'body', with_question(head, text), 'head_size', #head)
end

local function lacks_question(id)
  local body = redis.call('HGET', key('turn', id), 'body') or ''
  return string.sub(body, -#NO_QUESTION) == NO_QUESTION
end

-- The question of the thread's last exchange.
local function last_question(thread)
  local question = decoded(redis.call('LINDEX', key('history', thread), -1) or '').question
  return type(question) == 'string' and question or nil
end

local function question_in(id)
  return decoded(redis.call('HGET', key('turn', id), 'body') or '').text
end

-- The thread's last exchange must be this turn's. The record has a question that was edited since.
local function recall_question(id, thread)
  local question = lacks_question(id) and last_question(thread)
  if question then put_question(id, cjson.encode(question)) end
end
